// kernels/kda/cpu_backward.cpp -- chunked backward in the E-form, chunks last to first.
//
// With D = dL/dS' and the forward's S, E, L, P:
//   dE = P^T dO + K- D,   X = (I + L)^-T dE = dV,   N = tril(dO E^T),   M = -strict_tril(X E^T)
//   a = e^G (dO S^T) + sum_{j<i} N_ij w_j e^{G_i-G_j}           cotangent of the scaled query
//   r = -e^G (X S^T) + sum_{j<i} M_ij w_j e^{G_i-G_j}           of k as a reader
//   c = e^{G_C-G} (E D^T) + sum_{i>j} (N_ij q_i + M_ij k_i) e^{G_i-G_j}     of w = beta k
// The terms i = j of N cancel in dG, so they join a and c after it (README.md). What belongs to dO
// and what belongs to -X is stacked, two sets of kKdaChunk rows, where one GEMM serves both.
#include <algorithm>

#include "kernels/gemm/gemm.h"
#include "kernels/kda/pairs.h"
#include "kernels/kda/store.h"

namespace sluice::cpu {

using namespace kda;

namespace {

template <class T>
struct Work {
  explicit Work(const Sizes& s)
      : K(s.K),
        V(s.V),
        memory(Chunk<T>::elements(s) + Workspace<T>::rounded(K * V) +
               2 * kKdaChunk * (Workspace<T>::rounded(V) + kKdaChunk) +
               7 * kKdaChunk * Workspace<T>::rounded(K) + Workspace<T>::rounded(K) + kKdaChunk),
        c(s, memory),
        D(memory.take(K * V)),
        out(memory.take(2 * kKdaChunk * V)),
        N(memory.take(2 * kKdaChunk * kKdaChunk)),
        a(memory.take(2 * kKdaChunk * K)),
        cc(memory.take(kKdaChunk * K)),
        plus(memory.take(2 * kKdaChunk * K)),
        minus(memory.take(kKdaChunk * K)),
        dg(memory.take(kKdaChunk * K)),
        last(memory.take(K)),
        diagonal(memory.take(kKdaChunk)) {}

  int64_t K, V;
  Workspace<T> memory;
  Chunk<T> c;
  T* D;         // [K, V] dL/dS
  T* out;       // [2C, V] dO, then -X
  T* N;         // [2 * 64, 64] N, then M, its rows from row 64 on
  T* a;         // [2C, K] cotangent of q, then of k as a reader
  T* cc;        // [C, K] cotangent of w
  T* plus;      // [2C, K] Q+, then K+; later room for the pair sweeps
  T* minus;     // [C, K] e^{G_C - G}, later e^G
  T* dg;        // [C, K]
  T* last;      // [K] what the chunk's last row of dG gets on top
  T* diagonal;  // [C] of N
};

// a, r and c get what a block of pairs brings.
template <class T>
void pair_sweep(Work<T>& w, const PairBlock& b) {
  const Chunk<T>& c = w.c;
  const int64_t K = c.K, ld = kKdaChunk;
  T* tmp = w.plus;
  for (const int64_t part : {0, 1}) {  // rows: N for the queries, then M for the keys
    const T* scores = w.N + (part * kKdaChunk + b.row) * ld + b.column;
    gemm<T>(Transpose::no, Transpose::no, b.rows, K, b.columns, 1, scores, ld, c.columns, K, 0, tmp,
            K);
    T* __restrict to = w.a + (part * c.C + b.row) * K;
    for (int64_t e = 0; e < b.rows * K; ++e) to[e] += c.row_decay[e] * tmp[e];
  }
  for (const int64_t part : {0, 1})  // columns
    gemm<T>(Transpose::yes, Transpose::no, b.columns, K, b.rows, 1,
            w.N + (part * kKdaChunk + b.row) * ld + b.column, ld, c.rows + part * b.rows * K, K,
            T(part), tmp, K);
  T* __restrict to = w.cc + b.column * K;
  for (int64_t e = 0; e < b.columns * K; ++e) to[e] += c.column_decay[e] * tmp[e];
}

// The same for a few pairs, without GEMMs.
template <class T>
void small_pair_sweep(Work<T>& w, const PairBlock& b) {
  const Chunk<T>& c = w.c;
  const int64_t K = c.K, ld = kKdaChunk;
  for (int64_t i = 0; i < b.rows; ++i)
    for (int64_t j = 0; j < (b.triangle() ? i : b.columns); ++j) {
      const T* scores = w.N + (b.row + i) * ld + b.column + j;
      const T n = scores[0], m = scores[kKdaChunk * ld];
      const T *wy = c.columns + j * K, *x = c.row_decay + i * K, *y = c.column_decay + j * K;
      const T *q = c.rows + i * K, *k = c.rows + (b.rows + i) * K;
      T* __restrict a = w.a + (b.row + i) * K, * __restrict r = w.a + (c.C + b.row + i) * K;
      T* __restrict cc = w.cc + (b.column + j) * K;
      for (int64_t d = 0; d < K; ++d) {
        a[d] += n * x[d] * wy[d];
        r[d] += m * x[d] * wy[d];
        cc[d] += y[d] * (n * q[d] + m * k[d]);
      }
    }
}

// w.out: dO and -X of the chunk, and w.minus = e^{G_C - G}; w.c.sum = gamma.
template <class T>
void solve_errors(const KdaBackward& a, Work<T>& w, const T* L, const T* P, int64_t n0,
                  int64_t hv) {
  const int64_t K = w.K, V = w.V, C = w.c.C, ld = kKdaChunk;
  T *dO = w.out, *X = w.out + C * V;
  for (int64_t i = 0; i < C; ++i) std::copy_n(a.d_o.row<T>(n0 + i) + hv * V, V, dO + i * V);
  decay_to_end(w.c, w.minus, w.plus, w.c.sum);
  gemm<T>(Transpose::no, Transpose::no, C, V, K, -1, w.plus, K, w.D, V, 0, X, V);
  for (int64_t j = 0; j < C; j += kBlock) {  // P is lower triangular
    const int64_t columns = std::min(C - j, kBlock);
    gemm<T>(Transpose::yes, Transpose::no, columns, V, C - j, -1, P + j * ld + j, ld, dO + j * V, V,
            1, X + j * V, V);
  }
  solve_unit_lower<T>(Transpose::yes, C, V, L, ld, X, V);
}

// N and M, the parts of a, r, c that come through the states, and D of the chunk before.
template <class T>
void through_states(Work<T>& w, const T* E, const T* S) {
  Chunk<T>& c = w.c;
  const int64_t K = w.K, V = w.V, C = c.C, ld = kKdaChunk;
  for (const int64_t part : {0, 1})
    for (int64_t i = 0; i < C; i += kBlock) {  // only the lower triangles are used
      const int64_t rows = std::min(C - i, kBlock);
      gemm<T>(Transpose::no, Transpose::yes, rows, i + rows, V, 1, w.out + (part * C + i) * V, V, E,
              V, 0, w.N + (part * kKdaChunk + i) * ld, ld);
    }
  for (int64_t i = 0; i < C; ++i) {  // strictly lower from here on
    T *N = w.N + i * ld, *M = w.N + (kKdaChunk + i) * ld;
    w.diagonal[i] = N[i];
    std::fill(N + i, N + C, T(0));
    std::fill(M + i, M + C, T(0));
  }

  gemm<T>(Transpose::no, Transpose::yes, 2 * C, K, V, 1, w.out, V, S, V, 0, w.a, K);
  gemm<T>(Transpose::no, Transpose::yes, C, K, V, 1, E, V, w.D, V, 0, w.cc, K);
  for (int64_t d = 0; d < K; ++d) {
    const T gamma = c.sum[d];
    w.last[d] = gamma * dot(S + d * V, w.D + d * V, V);
    for (int64_t j = 0; j < V; ++j) w.D[d * V + j] *= gamma;
  }
  for (int64_t i = 0; i < C; ++i) {
    const T *wk = c.w + i * K, *decay = w.minus + i * K;
    T* __restrict cc = w.cc + i * K, * __restrict last = w.last;
    for (int64_t d = 0; d < K; ++d) {
      cc[d] *= decay[d];
      last[d] += wk[d] * cc[d];
    }
  }
  T* decay = w.minus;
  decay_from_start(c, decay, w.plus, w.plus + C * K);
  multiply_into(decay, w.a, C * K);
  multiply_into(decay, w.a + C * K, C * K);
  gemm<T>(Transpose::yes, Transpose::no, K, V, 2 * C, 1, w.plus, K, w.out, V, 1, w.D, V);
}

// a, r, c are complete: dg = dG summed from the right, then the diagonal of N.
template <class T>
void finish_decay(Work<T>& w) {
  const Chunk<T>& c = w.c;
  const int64_t K = c.K, C = c.C;
  for (int64_t i = C - 1; i >= 0; --i) {
    const T *q = c.q + i * K, *k = c.k + i * K, *wk = c.w + i * K, *r = w.a + (C + i) * K;
    T* __restrict a = w.a + i * K, * __restrict cc = w.cc + i * K, * __restrict dg = w.dg + i * K;
    const T* right = i == C - 1 ? w.last : w.dg + (i + 1) * K;
    const T n = w.diagonal[i];
    for (int64_t d = 0; d < K; ++d) {
      dg[d] = right[d] + (q[d] * a[d] + k[d] * r[d] - wk[d] * cc[d]);
      a[d] += n * wk[d];
      cc[d] += n * q[d];
    }
  }
}

template <class T>
void head_backward(const KdaBackward& a, const Sizes& s, const Saved<T>& saved, int64_t doc,
                   int64_t hv, int64_t first_chunk, Work<T>& w, T* parts) {
  const int32_t* cu = a.cu_seqlens.as<int32_t>();
  const int64_t state = s.K * s.V, begin = cu[doc], end = cu[doc + 1];
  std::fill_n(parts, s.K + 1, T(0));
  if (a.dfinal_state)
    std::copy_n(a.dfinal_state.row<T>(doc) + hv * state, state, w.D);
  else
    std::fill_n(w.D, state, T(0));
  for (int64_t chunk = (end - begin + kKdaChunk - 1) / kKdaChunk - 1; chunk >= 0; --chunk) {
    const int64_t n0 = begin + chunk * kKdaChunk, C = std::min(end - n0, kKdaChunk);
    load_chunk(a, s, n0, C, hv, w.c);
    solve_errors(a, w, saved.l(n0, hv), saved.p(n0, hv), n0, hv);
    through_states(w, saved.e(n0, hv), saved.s(first_chunk + chunk, hv));
    for_pair_blocks(w.c, 0, C, [&](const PairBlock& b) {
      if (b.rows <= 4)
        small_pair_sweep(w, b);
      else
        pair_sweep(w, b);
    });
    finish_decay(w);
    store_chunk(a, s, w.c, ChunkGrad<T>{w.a, w.a + C * s.K, w.cc, w.dg, w.out + C * s.V, w.minus},
                n0, hv, parts);
  }
  if (!a.dinitial_state) return;
  T* out = a.dinitial_state.t.row<T>(doc) + hv * state;
  for (int64_t i = 0; i < state; ++i) put(out[i], w.D[i], a.dinitial_state.add);
}

}  // namespace

void kda_backward(const Context& ctx, const KdaBackward& a, Tensor parts) {
  const Sizes s = sizes_of(a);
  const int64_t group = s.HV / s.H;
  const std::vector<int64_t> first_chunk = first_chunks(a.cu_seqlens, kKdaChunk);
  for_float_type(a.q, [&]<class T>(T) {
    const Saved<T> saved(static_cast<T*>(a.saved.data), s);
    // One query head a unit: its value heads add to the same dq and dk, in order.
    parallel_for(ctx, s.documents * s.H, [&](int64_t unit) {
      const int64_t doc = unit / s.H, h = unit % s.H;
      Work<T> w(s);
      for (int64_t hv = h * group; hv < (h + 1) * group; ++hv)
        head_backward<T>(a, s, saved, doc, hv, first_chunk[size_t(doc)], w,
                         parts.row<T>(doc) + hv * (s.K + 1));
    });
    for (int64_t hv = 0; hv < s.HV; ++hv)
      for (int64_t d = 0; d <= s.K; ++d) {
        T sum = 0;
        for (int64_t doc = 0; doc < s.documents; ++doc)
          sum += parts.row<T>(doc)[hv * (s.K + 1) + d];
        if (d < s.K)
          put(a.ddt_bias.t.row<T>(hv)[d], sum, a.ddt_bias.add);
        else
          put(a.dA_log.t.as<T>()[hv], sum, a.dA_log.add);
      }
  });
}

}  // namespace sluice::cpu
