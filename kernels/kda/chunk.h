// kernels/kda/chunk.h -- one chunk of one value head in working memory: what both directions share.
//
// Rows i, j of a chunk of C <= 64 tokens; sub-blocks of 16 rows. G_i is the decay summed from the
// chunk's start through token i, so G falls and every exponent below is G_later - G_earlier <= 0:
// no factor can overflow, whatever the gate (README.md).
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/base/fast_math.h"
#include "kernels/gemm/gemm.h"
#include "kernels/kda/saved.h"
#include "kernels/tensor/lanes.h"

namespace sluice::kda {

constexpr int64_t kSub = 16;  // rows of a sub-block

// Within a sub-block whose decay stays under this, e^{G_i - G_j} is split into two factors anchored at
// the middle row: exponents within +-kSafeRange, exact to rounding in f32. Beyond it, pair by pair.
constexpr double kSafeRange = 40;

template <class T>
struct Chunk {
  explicit Chunk(const Sizes& s)
      : K(s.K),
        V(s.V),
        q(kKdaChunk * K),
        k(kKdaChunk * K),
        w(kKdaChunk * K),
        rows(2 * kSub * K),
        decay(kKdaChunk * K),
        columns(kKdaChunk * K),
        beta(kKdaChunk),
        q_norm(kKdaChunk),
        k_norm(kKdaChunk) {}

  int64_t K, V, C = 0;
  std::vector<T> q, k, w;         // [C, K]: scaled query, key, write key beta * k; q and k normalised
  std::vector<T> rows;            // [2 * 16, K]: q rows then k rows of a sub-block, times a decay
  std::vector<T> decay, columns;  // [C, K]: e^{anchor - G_j}, and w times it
  std::vector<T> beta, q_norm, k_norm;  // [C]
};

// Number of the first chunk of each document, chunks being counted document by document.
inline std::vector<int64_t> first_chunks(const Tensor& cu_seqlens) {
  const int64_t documents = cu_seqlens.dim(0) - 1;
  const int32_t* cu = cu_seqlens.as<int32_t>();
  std::vector<int64_t> first(size_t(documents) + 1, 0);
  for (int64_t d = 0; d < documents; ++d)
    first[size_t(d) + 1] = first[size_t(d)] + (cu[d + 1] - cu[d] + kKdaChunk - 1) / kKdaChunk;
  return first;
}

// Normalises q and k and takes beta of tokens n0 .. n0 + C.
template <class T, class Args>
void load_chunk(const Args& a, const Sizes& s, int64_t n0, int64_t C, int64_t hv, Chunk<T>& c) {
  const int64_t K = s.K, h = hv / (s.HV / s.H);
  const T scale = 1 / std::sqrt(T(K));
  c.C = C;
  for (int64_t i = 0; i < C; ++i) {
    const T* q = a.q.template row<T>(n0 + i) + h * K;
    const T* k = a.k.template row<T>(n0 + i) + h * K;
    const T eps = T(kKdaNormEps);
    const T rq = 1 / std::sqrt(lane_sum<T>(K, [&](int64_t d) { return q[d] * q[d]; }) + eps);
    const T rk = 1 / std::sqrt(lane_sum<T>(K, [&](int64_t d) { return k[d] * k[d]; }) + eps);
    const T b = T(a.params.beta_max) * fast_sigmoid(a.beta.template row<T>(n0 + i)[hv]);
    c.q_norm[size_t(i)] = rq;
    c.k_norm[size_t(i)] = rk;
    c.beta[size_t(i)] = b;
    T *cq = &c.q[size_t(i * K)], *ck = &c.k[size_t(i * K)], *cw = &c.w[size_t(i * K)];
    for (int64_t d = 0; d < K; ++d) {
      cq[d] = q[d] * rq * scale;
      ck[d] = k[d] * rk;
      cw[d] = ck[d] * b;
    }
  }
}

// G of the chunk's tokens into rows `G`, `stride` apart: gate law, then the running sum.
template <class T, class Args>
void load_decay(const Args& a, const Sizes& s, int64_t n0, int64_t C, int64_t hv, T* G,
                int64_t stride) {
  const int64_t K = s.K;
  const T A = fast_exp(a.A_log.template as<T>()[hv]), lb = T(a.params.gate_lower_bound);
  const T* bias = a.dt_bias.template row<T>(hv);
  for (int64_t i = 0; i < C; ++i) {
    const T* z = a.g.template row<T>(n0 + i) + hv * K;
    T* g = G + i * stride;
    if (a.params.gate == GateLaw::softplus)
      for (int64_t d = 0; d < K; ++d) g[d] = -A * fast_softplus(z[d] + bias[d]);
    else
      for (int64_t d = 0; d < K; ++d) g[d] = lb * fast_sigmoid(A * (z[d] + bias[d]));
    if (i > 0)
      for (int64_t d = 0; d < K; ++d) g[d] += g[d - stride];
  }
}

// Factors of the pairs (i in the sub-block at `first`, j < end): rows[i] = x_i e^{G_i - G_anchor} for
// q and k, decay[j] = e^{G_anchor - G_j}, columns[j] = w_j * decay[j].
template <class T>
void pair_factors(Chunk<T>& c, const T* G, int64_t stride, int64_t first, int64_t count,
                  int64_t begin, int64_t end, int64_t anchor) {
  const int64_t K = c.K;
  const T* at = G + anchor * stride;
  for (int64_t i = 0; i < count; ++i) {
    const T* g = G + (first + i) * stride;
    const T *q = &c.q[size_t((first + i) * K)], *k = &c.k[size_t((first + i) * K)];
    T *rq = &c.rows[size_t(i * K)], *rk = &c.rows[size_t((count + i) * K)];
    for (int64_t d = 0; d < K; ++d) {
      const T x = fast_exp(g[d] - at[d]);
      rq[d] = q[d] * x;
      rk[d] = k[d] * x;
    }
  }
  for (int64_t j = begin; j < end; ++j) {
    const T *g = G + j * stride, *w = &c.w[size_t(j * K)];
    T *y = &c.decay[size_t(j * K)], *wy = &c.columns[size_t(j * K)];
    for (int64_t d = 0; d < K; ++d) {
      y[d] = fast_exp(at[d] - g[d]);
      wy[d] = w[d] * y[d];
    }
  }
}

// Is the decay across rows first .. first + count - 1 small enough for the middle anchor?
template <class T>
bool middle_anchor_is_safe(const Chunk<T>& c, const T* G, int64_t stride, int64_t first,
                           int64_t count) {
  const T *a = G + first * stride, *b = G + (first + count - 1) * stride;
  for (int64_t d = 0; d < c.K; ++d)
    if (!(a[d] - b[d] <= T(kSafeRange))) return false;
  return true;
}

}  // namespace sluice::kda
