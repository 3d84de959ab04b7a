// kernels/kda/chunk.h -- one chunk of one value head in working memory: what both directions share.
//
// Rows i, j of a chunk of C <= 64 tokens. Log decays stay by token (g <= 0); the exponent of a
// pair, sum of g over (j, i], is always summed from its own end and never taken as a difference of
// long sums, so that a gate of -1000 somewhere costs its neighbours no digit (README.md).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/base/fast_math.h"
#include "kernels/chunks/chunks.h"
#include "kernels/kda/saved.h"
#include "kernels/tensor/workspace.h"

namespace sluice::kda {

using namespace chunks;

constexpr int64_t kBlock = kKdaChunk / 2;  // rows, and columns, of the largest block of pairs

template <class T>
struct Chunk {
  Chunk(const Sizes& s, Workspace<T>& from)
      : K(s.K),
        V(s.V),
        q(from.take(kKdaChunk * K)),
        k(from.take(kKdaChunk * K)),
        w(from.take(kKdaChunk * K)),
        g(from.take(kKdaChunk * K)),
        rows(from.take(2 * kBlock * K)),
        row_decay(from.take(kBlock * K)),
        columns(from.take(kBlock * K)),
        column_decay(from.take(kBlock * K)),
        sum(from.take(K)),
        beta(from.take(kKdaChunk)),
        q_norm(from.take(kKdaChunk)),
        k_norm(from.take(kKdaChunk)) {}
  static int64_t elements(const Sizes& s) {
    return Workspace<T>::rounded(s.K) * (4 * kKdaChunk + 5 * kBlock + 1) + 3 * kKdaChunk;
  }

  int64_t K, V, C = 0;
  T *q, *k, *w;     // [C, K] scaled query, key, write key beta * k; q and k normalised
  T* g;             // [C, K] log decay of each token
  T* rows;          // [2 * kBlock, K] q rows of a block of pairs, then its k rows, times row_decay
  T* row_decay;     // [kBlock, K] e^{G_i - G_anchor}
  T* columns;       // [kBlock, K] w rows of a block times column_decay
  T* column_decay;  // [kBlock, K] e^{G_anchor - G_j}
  T* sum;           // [K] a sum of g, or e to it
  T *beta, *q_norm, *k_norm;  // [C]
};

// The next four go over flat arrays: the shape of loop that compilers turn into vectors of exp.
template <class T>
void exp_all(T* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] = fast_exp(x[i]);
}
template <class T>
void multiply(const T* x, const T* y, T* __restrict out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = x[i] * y[i];
}
template <class T>
void multiply_into(const T* x, T* __restrict out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] *= x[i];
}
template <class T>
void add(const T* x, const T* y, T* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = x[i] + y[i];
}

// Gate logits of C tokens, bias added, into y [C, K].
template <class T, class Args>
void gate_logits(const Args& a, const Sizes& s, int64_t n0, int64_t C, int64_t hv, T* y) {
  const T* bias = a.dt_bias.template row<T>(hv);
  for (int64_t i = 0; i < C; ++i)
    add(a.g.template row<T>(n0 + i) + hv * s.K, bias, y + i * s.K, s.K);
}

// Tokens n0 .. n0 + C: norms, beta, log decays.
template <class T, class Args>
void load_chunk(const Args& a, const Sizes& s, int64_t n0, int64_t C, int64_t hv, Chunk<T>& c) {
  const int64_t K = s.K, h = hv / (s.HV / s.H);
  const T scale = 1 / std::sqrt(T(K));
  c.C = C;
  for (int64_t i = 0; i < C; ++i) {
    const T* q = a.q.template row<T>(n0 + i) + h * K;
    const T* k = a.k.template row<T>(n0 + i) + h * K;
    if (i + kAhead < C) {
      prefetch(q + kAhead * a.q.stride[0], K);
      prefetch(k + kAhead * a.k.stride[0], K);
      prefetch(a.g.template row<T>(n0 + i + kAhead) + hv * K, K);
    }
    const T rq = 1 / std::sqrt(dot(q, q, K) + T(kKdaNormEps));
    const T rk = 1 / std::sqrt(dot(k, k, K) + T(kKdaNormEps));
    const T b = T(a.params.beta_max) * fast_sigmoid(a.beta.template row<T>(n0 + i)[hv]);
    c.q_norm[i] = rq;
    c.k_norm[i] = rk;
    c.beta[i] = b;
    T* __restrict cq = c.q + i * K, * __restrict ck = c.k + i * K, * __restrict cw = c.w + i * K;
    for (int64_t d = 0; d < K; ++d) {
      cq[d] = q[d] * rq * scale;
      ck[d] = k[d] * rk;
      cw[d] = ck[d] * b;
    }
  }
  gate_logits(a, s, n0, C, hv, c.g);
  const T A = fast_exp(a.A_log.template as<T>()[hv]), lb = T(a.params.gate_lower_bound);
  T* g = c.g;
  if (a.params.gate == GateLaw::softplus)
    for (int64_t e = 0; e < C * K; ++e) g[e] = -A * fast_softplus(g[e]);
  else
    for (int64_t e = 0; e < C * K; ++e) g[e] = lb * fast_sigmoid(A * g[e]);
}

// decay[i] = e^{G_i}, the decay since the chunk began; out_q, out_k = q, k times it: Q+ and K+.
template <class T>
void decay_from_start(const Chunk<T>& c, T* decay, T* out_q, T* out_k) {
  const int64_t K = c.K, n = c.C * K;
  std::memcpy(decay, c.g, size_t(K) * sizeof(T));
  for (int64_t i = 1; i < c.C; ++i) add(decay + (i - 1) * K, c.g + i * K, decay + i * K, K);
  exp_all(decay, n);
  multiply(c.q, decay, out_q, n);
  multiply(c.k, decay, out_k, n);
}

// decay[i] = e^{G_C - G_i}, out = w times it: K-; gamma = e^{G_C}.
template <class T>
void decay_to_end(const Chunk<T>& c, T* decay, T* out, T* gamma) {
  const int64_t K = c.K, n = c.C * K;
  std::fill_n(decay + n - K, K, T(0));
  for (int64_t i = c.C - 1; i > 0; --i) add(decay + i * K, c.g + i * K, decay + (i - 1) * K, K);
  add(decay, c.g, gamma, K);
  exp_all(gamma, K);
  exp_all(decay, n);
  multiply(c.w, decay, out, n);
}

}  // namespace sluice::kda
