// kernels/kda/cpu_forward.cpp -- chunked forward in the E-form: GEMMs, with one solve a chunk.
#include <optional>

#include "kernels/kda/chunk.h"
#include "kernels/tensor/float_dispatch.h"

namespace sluice::cpu {

using namespace kda;

namespace {

// L_ij = sum_d k_id w_jd e^{G_id - G_jd} (i > j), P_ij the same with q (i >= j): rows `ld` apart.
template <class T>
void diagonal_scores(Chunk<T>& c, const T* G, int64_t gs, int64_t first, int64_t count, T* L, T* P,
                     int64_t ld) {
  const int64_t K = c.K;
  if (middle_anchor_is_safe(c, G, gs, first, count)) {
    pair_factors(c, G, gs, first, count, first, first + count, first + count / 2);
    const T* columns = &c.columns[size_t(first * K)];
    gemm<T>(Transpose::no, Transpose::yes, count, count, K, 1, c.rows.data(), K, columns, K, 0,
            P + first * ld + first, ld);
    gemm<T>(Transpose::no, Transpose::yes, count, count, K, 1, &c.rows[size_t(count * K)], K, columns,
            K, 0, L + first * ld + first, ld);
    return;
  }
  for (int64_t i = first; i < first + count; ++i)
    for (int64_t j = first; j <= i; ++j) {
      const T *gi = G + i * gs, *gj = G + j * gs;
      const T *q = &c.q[size_t(i * K)], *k = &c.k[size_t(i * K)], *w = &c.w[size_t(j * K)];
      P[i * ld + j] = lane_sum<T>(K, [&](int64_t d) { return q[d] * w[d] * fast_exp(gi[d] - gj[d]); });
      L[i * ld + j] = lane_sum<T>(K, [&](int64_t d) { return k[d] * w[d] * fast_exp(gi[d] - gj[d]); });
    }
}

template <class T>
void scores(Chunk<T>& c, const T* G, int64_t gs, T* L, T* P, int64_t ld) {
  for (int64_t first = 0; first < c.C; first += kSub) {
    const int64_t count = std::min(c.C - first, kSub);
    if (first > 0) {  // all earlier columns, anchored at this sub-block's first row
      pair_factors(c, G, gs, first, count, 0, first, first);
      gemm<T>(Transpose::no, Transpose::yes, count, first, c.K, 1, c.rows.data(), c.K,
              c.columns.data(), c.K, 0, P + first * ld, ld);
      gemm<T>(Transpose::no, Transpose::yes, count, first, c.K, 1, &c.rows[size_t(count * c.K)], c.K,
              c.columns.data(), c.K, 0, L + first * ld, ld);
    }
    diagonal_scores(c, G, gs, first, count, L, P, ld);
    for (int64_t i = first; i < first + count; ++i)  // the upper part holds no score
      for (int64_t j = i + 1; j < c.C; ++j) P[i * ld + j] = 0;
  }
}

// Where a chunk's rows are kept: token `row` on, value head `head` of `saved`.
template <class T>
struct Place {
  const Saved<T>& saved;
  int64_t row, head;
};

// One chunk, tokens n0 on of value head hv: E, O and the state after it.
template <class T>
void chunk_forward(const KdaForward& a, const Sizes& s, Chunk<T>& c, int64_t n0, int64_t hv,
                   const Place<T>& at, T* S, std::vector<T>& with_decay) {
  const int64_t K = c.K, V = c.V, C = c.C, HV = at.saved.size.HV;
  const int64_t ks = HV * K, vs = HV * V, cs = HV * kKdaChunk;
  T *G = at.saved.g(at.row, at.head), *E = at.saved.e(at.row, at.head);
  T *L = at.saved.l(at.row, at.head), *P = at.saved.p(at.row, at.head);
  load_chunk(a, s, n0, C, hv, c);
  load_decay(a, s, n0, C, hv, G, ks);
  scores(c, G, ks, L, P, cs);

  for (int64_t i = 0; i < C; ++i) {  // k e^G, then q e^G behind
    const T* g = G + i * ks;
    T *kp = &with_decay[size_t(i * K)], *qp = &with_decay[size_t((kKdaChunk + i) * K)];
    for (int64_t d = 0; d < K; ++d) {
      const T x = fast_exp(g[d]);
      kp[d] = c.k[size_t(i * K + d)] * x;
      qp[d] = c.q[size_t(i * K + d)] * x;
    }
    std::copy_n(a.v.row<T>(n0 + i) + hv * V, V, E + i * vs);
  }
  T* O = a.o.row<T>(n0) + hv * V;
  const int64_t os = a.o.stride[0];
  gemm<T>(Transpose::no, Transpose::no, C, V, K, -1, with_decay.data(), K, S, V, 1, E, vs);
  solve_unit_lower<T>(Transpose::no, C, V, L, cs, E, vs);
  gemm<T>(Transpose::no, Transpose::no, C, V, K, 1, &with_decay[size_t(kKdaChunk * K)], K, S, V, 0, O, os);
  gemm<T>(Transpose::no, Transpose::no, C, V, C, 1, P, cs, E, vs, 1, O, os);

  const T* last = G + (C - 1) * ks;  // S' = e^{G_C} S + (w e^{G_C - G})^T E
  for (int64_t i = 0; i < C; ++i)
    for (int64_t d = 0; d < K; ++d)
      with_decay[size_t(i * K + d)] = c.w[size_t(i * K + d)] * fast_exp(last[d] - (G + i * ks)[d]);
  for (int64_t d = 0; d < K; ++d) {
    const T gamma = fast_exp(last[d]);
    for (int64_t j = 0; j < V; ++j) S[d * V + j] *= gamma;
  }
  gemm<T>(Transpose::yes, Transpose::no, K, V, C, 1, with_decay.data(), K, E, vs, 1, S, V);
}

// One value head of one document. Without `saved`, one chunk's worth of memory serves every chunk.
template <class T>
void head_forward(const KdaForward& a, const Sizes& s, int64_t doc, int64_t hv, int64_t first_chunk,
                  const std::optional<Saved<T>>& saved) {
  const int32_t* cu = a.cu_seqlens.as<int32_t>();
  const int64_t state = s.K * s.V;
  std::vector<T> S(size_t(state), T(0)), with_decay(size_t(2 * kKdaChunk * s.K));
  if (a.initial_state) std::copy_n(a.initial_state.row<T>(doc) + hv * state, state, S.data());

  Chunk<T> c(s);
  const Sizes one{kKdaChunk, 0, 1, 1, s.K, s.V};
  std::vector<T> memory(saved ? 0 : size_t(one.elements()));
  const Saved<T> local = saved ? *saved : Saved<T>(memory.data(), one);
  int64_t chunk = first_chunk;
  for (int64_t n0 = cu[doc]; n0 < cu[doc + 1]; n0 += kKdaChunk, ++chunk) {
    c.C = std::min<int64_t>(cu[doc + 1] - n0, kKdaChunk);
    if (saved) std::copy_n(S.data(), state, saved->s(chunk, hv));
    const Place<T> at{local, saved ? n0 : 0, saved ? hv : 0};
    chunk_forward<T>(a, s, c, n0, hv, at, S.data(), with_decay);
  }
  if (a.final_state) std::copy_n(S.data(), state, a.final_state.row<T>(doc) + hv * state);
}

}  // namespace

void kda_forward(const Context& ctx, const KdaForward& a) {
  const Sizes s = sizes_of(a);
  const std::vector<int64_t> first_chunk = first_chunks(a.cu_seqlens);
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
