// kernels/kda/cpu_forward.cpp -- chunked forward in the E-form: GEMMs, with one solve a chunk.
#include <algorithm>
#include <optional>

#include "kernels/gemm/gemm.h"
#include "kernels/kda/pairs.h"
#include "kernels/kda/recurrent.h"
#include "kernels/tensor/float_dispatch.h"

namespace sluice::cpu {

using namespace kda;

namespace {

// L_ij = sum_d k_id w_jd e^{G_id - G_jd} (i > j), P_ij the same with q (i >= j): rows of kKdaChunk.
// P is 0 above the diagonal; L is undefined from the diagonal on.
template <class T>
void scores(Chunk<T>& c, T* L, T* P) {
  const int64_t K = c.K, ld = kKdaChunk;
  for_pair_blocks(c, 0, c.C, [&](const PairBlock& b) {
    const int64_t at = b.row * ld + b.column;
    const T *q = c.rows, *k = c.rows + b.rows * K;
    if (b.rows <= 4) {  // smaller than a GEMM's overhead
      for (int64_t i = 0; i < b.rows; ++i)
        for (int64_t j = 0; j < b.columns; ++j) {
          P[at + i * ld + j] = dot(q + i * K, c.columns + j * K, K);
          L[at + i * ld + j] = dot(k + i * K, c.columns + j * K, K);
        }
      return;
    }
    gemm<T>(Transpose::no, Transpose::yes, b.rows, b.columns, K, 1, q, K, c.columns, K, 0, P + at,
            ld);
    gemm<T>(Transpose::no, Transpose::yes, b.rows, b.columns, K, 1, k, K, c.columns, K, 0, L + at,
            ld);
  });
  for (int64_t i = 0; i < c.C; ++i) std::fill(P + i * ld + i + 1, P + i * ld + c.C, T(0));
}

template <class T>
struct Work {
  explicit Work(const Sizes& s)
      : memory(Chunk<T>::elements(s) + 3 * kKdaChunk * Workspace<T>::rounded(s.K)),
        c(s, memory),
        a(memory.take(kKdaChunk * s.K)),
        b(memory.take(kKdaChunk * s.K)),
        decay(memory.take(kKdaChunk * s.K)) {}

  Workspace<T> memory;
  Chunk<T> c;
  T *a, *b, *decay;  // [C, K]
};

// Where a chunk's E, L and P go: in `saved` for backward, or in one chunk's worth of memory.
template <class T>
struct Kept {
  T *E, *L, *P;
};

// One chunk, tokens n0 .. n0 + C of value head hv: E, O, and S [K, V] taken to the state after it.
template <class T>
void chunk_forward(const KdaForward& a, const Sizes& s, Work<T>& w, int64_t n0, int64_t C,
                   int64_t hv, const Kept<T>& to, T* S) {
  Chunk<T>& c = w.c;
  const int64_t K = c.K, V = c.V, ld = kKdaChunk;
  load_chunk(a, s, n0, C, hv, c);
  scores(c, to.L, to.P);

  decay_from_start(c, w.decay, w.a, w.b);
  for (int64_t i = 0; i < C; ++i) std::copy_n(a.v.row<T>(n0 + i) + hv * V, V, to.E + i * V);
  gemm<T>(Transpose::no, Transpose::no, C, V, K, -1, w.b, K, S, V, 1, to.E, V);
  solve_unit_lower<T>(Transpose::no, C, V, to.L, ld, to.E, V);

  T* O = a.o.row<T>(n0) + hv * V;
  const int64_t os = a.o.stride[0];
  gemm<T>(Transpose::no, Transpose::no, C, V, K, 1, w.a, K, S, V, 0, O, os);
  for (int64_t i = 0; i < C; i += kBlock) {  // P is lower triangular
    const int64_t rows = std::min(C - i, kBlock);
    gemm<T>(Transpose::no, Transpose::no, rows, V, i + rows, 1, to.P + i * ld, ld, to.E, V, 1,
            O + i * os, os);
  }

  decay_to_end(c, w.decay, w.b, c.sum);  // S' = gamma S + K-^T E
  for (int64_t d = 0; d < K; ++d)
    for (int64_t j = 0; j < V; ++j) S[d * V + j] *= c.sum[d];
  gemm<T>(Transpose::yes, Transpose::no, K, V, C, 1, w.b, K, to.E, V, 1, S, V);
}

// One value head of one document; its state is kept where it ends, or in memory of its own.
template <class T>
void head_forward(const KdaForward& a, const Sizes& s, int64_t doc, int64_t hv, int64_t first_chunk,
                  const std::optional<Saved<T>>& saved) {
  const int32_t* cu = a.cu_seqlens.as<int32_t>();
  const int64_t begin = cu[doc], end = cu[doc + 1], state = s.K * s.V;
  const T* from = a.initial_state ? a.initial_state.row<T>(doc) + hv * state : nullptr;
  // An empty document leaves its state: nothing to do if there is none, or it lies where it goes.
  if (begin == end && (!a.final_state || from == a.final_state.row<T>(doc) + hv * state)) return;

  const int64_t kept = kKdaChunk * (Workspace<T>::rounded(s.V) + 2 * kKdaChunk);
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
    to = {memory.take(kKdaChunk * s.V), memory.take(kKdaChunk * kKdaChunk),
          memory.take(kKdaChunk * kKdaChunk)};
  int64_t chunk = first_chunk;
  for (int64_t n0 = begin; n0 < end; n0 += kKdaChunk, ++chunk) {
    if (saved) {
      std::copy_n(S, state, saved->s(chunk, hv));
      to = {saved->e(n0, hv), saved->l(n0, hv), saved->p(n0, hv)};
    }
    chunk_forward<T>(a, s, w, n0, std::min(end - n0, kKdaChunk), hv, to, S);
  }
}

}  // namespace

void kda_forward(const Context& ctx, const KdaForward& a) {
  const Sizes s = sizes_of(a);
  const std::vector<int64_t> first_chunk = first_chunks(a.cu_seqlens, kKdaChunk);
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
