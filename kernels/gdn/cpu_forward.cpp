// kernels/gdn/cpu_forward.cpp -- chunked forward in the E-form: GEMMs, with one solve a chunk.
#include <algorithm>
#include <optional>

#include "kernels/gdn/recurrent.h"
#include "kernels/gemm/gemm.h"
#include "kernels/tensor/float_dispatch.h"

namespace sluice::cpu {

using namespace gdn;

namespace {

template <class T>
struct Work {
  explicit Work(const Sizes& s)
      : memory(Chunk<T>::elements(s) + 2 * kGdnChunk * (Workspace<T>::rounded(s.V) + kGdnChunk)),
        c(s, memory),
        read(memory.take(2 * kGdnChunk * s.V)),
        scores(memory.take(2 * kGdnChunk * kGdnChunk)) {}

  Workspace<T> memory;
  Chunk<T> c;
  T* read;    // [2C, V] the state that entered, as the queries and the keys see it
  T* scores;  // [2C, 64] q_i . w_j, then k_i . w_j
};

// Where a chunk's P, and of the delta rule E and L, go: in `saved`, or in one chunk's memory.
template <class T>
struct Kept {
  T *P, *E, *L;
};

// P_ij = (q_i . w_j) e^{G_i - G_j} (i >= j, else 0), L the same with k: rows of kGdnChunk. L is
// undefined from the diagonal on.
template <class T>
void pair_scores(const Sizes& s, Work<T>& w, const Kept<T>& to) {
  const Chunk<T>& c = w.c;
  const int64_t C = c.C, ld = kGdnChunk, sets = s.delta_rule ? 2 : 1;
  gemm<T>(Transpose::no, Transpose::yes, sets * C, C, c.K, 1, c.q, c.K, c.w, c.K, 0, w.scores, ld);
  for (int64_t i = 0; i < C; ++i)
    for (int64_t j = 0; j < C; ++j) to.P[i * ld + j] = w.scores[i * ld + j] * c.decay[i * ld + j];
  for (int64_t i = 0; s.delta_rule && i < C; ++i)
    for (int64_t j = 0; j < i; ++j)
      to.L[i * ld + j] = w.scores[(C + i) * ld + j] * c.decay[i * ld + j];
}

// One chunk, tokens n0 .. n0 + C of value head hv: O, and S [K, V] taken to the state after it.
template <class T>
void chunk_forward(const GdnForward& a, const Sizes& s, Work<T>& w, int64_t n0, int64_t C,
                   int64_t hv, const Kept<T>& to, T* S) {
  Chunk<T>& c = w.c;
  const int64_t K = s.K, V = s.V, ld = kGdnChunk, sets = s.delta_rule ? 2 : 1;
  load_tokens(a, s, n0, C, hv, c);
  fill_decays(c);
  pair_scores(s, w, to);

  gemm<T>(Transpose::no, Transpose::no, sets * C, V, K, 1, c.q, K, S, V, 0, w.read, V);
  const T* E = a.v.row<T>(n0) + hv * V;  // without the delta rule, v is written as it is
  int64_t es = a.v.stride[0];
  if (s.delta_rule) {  // E = (I + L)^-1 (V - e^G K S)
    for (int64_t i = 0; i < C; ++i) {
      const T *v = E + i * es, *seen = w.read + (C + i) * V, decay = c.from_start[i];
      for (int64_t j = 0; j < V; ++j) to.E[i * V + j] = v[j] - decay * seen[j];
    }
    solve_unit_lower<T>(Transpose::no, C, V, to.L, ld, to.E, V);
    E = to.E, es = V;
  }

  T* O = a.o.row<T>(n0) + hv * V;  // O = e^G Q S + P E
  const int64_t os = a.o.stride[0];
  for (int64_t i = 0; i < C; ++i)
    for (int64_t j = 0; j < V; ++j) O[i * os + j] = c.from_start[i] * w.read[i * V + j];
  for (int64_t i = 0; i < C; i += kHalf) {  // P is lower triangular
    const int64_t rows = std::min(C - i, kHalf);
    gemm<T>(Transpose::no, Transpose::no, rows, V, i + rows, 1, to.P + i * ld, ld, E, es, 1,
            O + i * os, os);
  }

  scale_rows(c.to_end(), C, K, c.w);  // S' = gamma S + (e^{G_C - G} W)^T E
  gemm<T>(Transpose::yes, Transpose::no, K, V, C, 1, c.w, K, E, es, c.gamma(), S, V);
}

// One value head of one document; its state is kept where it ends, or in memory of its own.
template <class T>
void head_forward(const GdnForward& a, const Sizes& s, int64_t doc, int64_t hv, int64_t first_chunk,
                  const std::optional<Saved<T>>& saved) {
  const int32_t* cu = a.cu_seqlens.as<int32_t>();
  const int64_t begin = cu[doc], end = cu[doc + 1], state = s.K * s.V;
  const T* from = a.initial_state ? a.initial_state.row<T>(doc) + hv * state : nullptr;
  // An empty document leaves its state: nothing to do if there is none, or it lies where it goes.
  if (begin == end && (!a.final_state || from == a.final_state.row<T>(doc) + hv * state)) return;

  const int64_t kept = kGdnChunk * (Workspace<T>::rounded(s.V) + 2 * kGdnChunk);
  Workspace<T> memory(Workspace<T>::rounded(a.final_state ? 0 : state) + (saved ? 0 : kept));
  T* S = a.final_state ? a.final_state.row<T>(doc) + hv * state : memory.take(state);
  if (!from)
    std::fill_n(S, state, T(0));
  else if (from != S)
    std::copy_n(from, state, S);
  if (!saved && end - begin < kShort) return recurrent_forward<T>(a, s, begin, end, hv, S);

  Work<T> w(s);
  Kept<T> to{};
  if (!saved)
    to = {memory.take(kGdnChunk * kGdnChunk), memory.take(kGdnChunk * s.V),
          memory.take(kGdnChunk * kGdnChunk)};
  int64_t chunk = first_chunk;
  for (int64_t n0 = begin; n0 < end; n0 += kGdnChunk, ++chunk) {
    if (saved) {
      std::copy_n(S, state, saved->s(chunk, hv));
      to = {saved->p(n0, hv), saved->e(n0, hv), saved->l(n0, hv)};
    }
    chunk_forward<T>(a, s, w, n0, std::min(end - n0, kGdnChunk), hv, to, S);
  }
}

}  // namespace

void gdn_forward(const Context& ctx, const GdnForward& a) {
  const Sizes s = sizes_of(a);
  const std::vector<int64_t> first_chunk = first_chunks(a.cu_seqlens, kGdnChunk);
  for_float_type(a.q, [&]<class T>(T) {
    std::optional<Saved<T>> saved;
    if (a.saved) saved.emplace(static_cast<T*>(a.saved.data), s);
    parallel_for(ctx, s.documents * s.HV, [&](int64_t unit) {
      const int64_t doc = unit / s.HV, hv = unit % s.HV;
      head_forward<T>(a, s, doc, hv, first_chunk[size_t(doc)], saved);
    });
  });
}

}  // namespace sluice::cpu
