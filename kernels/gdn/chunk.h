// kernels/gdn/chunk.h -- one chunk of one value head in working memory: what both directions share.
//
// Rows i, j of a chunk of C <= 64 tokens. Every exponent is a sum of g <= 0 over its own tokens,
// never a difference of longer sums, so that a gate of -1000 somewhere costs its neighbours no
// digit (README.md).
#pragma once

#include <algorithm>
#include <cmath>

#include "kernels/base/fast_math.h"
#include "kernels/chunks/chunks.h"
#include "kernels/gdn/saved.h"
#include "kernels/tensor/workspace.h"

namespace sluice::gdn {

using namespace chunks;

constexpr int64_t kHalf = kGdnChunk / 2;

template <class T>
struct Chunk {
  Chunk(const Sizes& s, Workspace<T>& from)
      : K(s.K),
        V(s.V),
        q(from.take(2 * kGdnChunk * K)),
        w(from.take(kGdnChunk * K)),
        decay(from.take(kGdnChunk * kGdnChunk)),
        from_start(from.take(kGdnChunk)),
        g(from.take(kGdnChunk)),
        y(from.take(kGdnChunk)),
        write(from.take(kGdnChunk)),
        q_norm(from.take(kGdnChunk)),
        k_norm(from.take(kGdnChunk)) {}
  static int64_t elements(const Sizes& s) {
    return Workspace<T>::rounded(s.K) * 3 * kGdnChunk + (kGdnChunk + 6) * kGdnChunk;
  }
  T* k() const { return q + C * K; }
  T gamma() const { return from_start[C - 1]; }
  const T* to_end() const { return decay + (C - 1) * kGdnChunk; }  // [C] e^{G_C - G_j}

  int64_t K, V, C = 0;
  T* q;                // [2C, K] scaled queries, then keys; both normalised
  T* w;                // [C, K] what is written: write * k
  T* decay;            // [C, 64] e^{G_i - G_j}, the sum over (j, i]; 0 above the diagonal
  T* from_start;       // [C] e^{G_i}
  T *g, *y;            // [C] log decay; gate logit with its bias
  T* write;            // [C] beta, or the step of a gate without the delta rule
  T *q_norm, *k_norm;  // [C] 1 / sqrt(|x|^2 + eps)
};

// decay and from_start of c.g.
template <class T>
void fill_decays(Chunk<T>& c) {
  const int64_t ld = kGdnChunk;
  T sum = 0;
  for (int64_t i = 0; i < c.C; ++i) {
    T *row = c.decay + i * ld, *above = row - ld;
    const T g = c.g[i];
    for (int64_t j = 0; j < i; ++j) row[j] = above[j] + g;
    row[i] = 0;
    std::fill(row + i + 1, row + ld, T(-INFINITY));
    c.from_start[i] = sum += g;
  }
  for (int64_t e = 0; e < c.C * ld; ++e) c.decay[e] = fast_exp(c.decay[e]);
  for (int64_t i = 0; i < c.C; ++i) c.from_start[i] = fast_exp(c.from_start[i]);
}

// Tokens n0 .. n0 + C: norms, gates, write strengths; no decays of pairs yet.
template <class T, class Args>
void load_tokens(const Args& a, const Sizes& s, int64_t n0, int64_t C, int64_t hv, Chunk<T>& c) {
  const int64_t K = s.K, h = hv / (s.HV / s.H);
  const T scale = 1 / std::sqrt(T(K)), A = fast_exp(a.A_log.template as<T>()[hv]);
  const T bias = a.dt_bias.template as<T>()[hv];
  c.C = C;
  for (int64_t i = 0; i < C; ++i) {
    const T* q = a.q.template row<T>(n0 + i) + h * K;
    const T* k = a.k.template row<T>(n0 + i) + h * K;
    if (i + kAhead < C) {
      prefetch(q + kAhead * a.q.stride[0], K);
      prefetch(k + kAhead * a.k.stride[0], K);
    }
    const T rq = 1 / std::sqrt(dot(q, q, K) + T(kGdnNormEps));
    const T rk = 1 / std::sqrt(dot(k, k, K) + T(kGdnNormEps));
    c.y[i] = a.g.template row<T>(n0 + i)[hv] + bias;
    const T step = fast_softplus(c.y[i]);
    c.g[i] = -A * step;
    const T b = s.delta_rule
                    ? T(a.params.beta_max) * fast_sigmoid(a.beta.template row<T>(n0 + i)[hv])
                    : step;
    c.q_norm[i] = rq;
    c.k_norm[i] = rk;
    c.write[i] = b;
    T* __restrict cq = c.q + i * K, * __restrict ck = c.k() + i * K, * __restrict cw = c.w + i * K;
    for (int64_t d = 0; d < K; ++d) {
      cq[d] = q[d] * rq * scale;
      ck[d] = k[d] * rk;
      cw[d] = ck[d] * b;
    }
  }
}

// x [rows, n] times a factor a row.
template <class T>
void scale_rows(const T* by, int64_t rows, int64_t n, T* x) {
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t e = 0; e < n; ++e) x[i * n + e] *= by[i];
}

}  // namespace sluice::gdn
