// kernels/kda/store.h -- from the cotangents of a chunk's factors to those of the op's inputs.
#pragma once

#include "kernels/kda/chunk.h"
#include "kernels/tensor/float_dispatch.h"

namespace sluice::kda {

// Below this log decay e^g is 0 in T, and so is everything that g's gradient is made of; what the
// reverse sum left there is rounding, which the gate's slope (g itself, for A_log) would enlarge.
template <class T>
constexpr T kForgetsAll = sizeof(T) == 4 ? T(-104) : T(-746);

// Cotangents of one chunk, before norm, gate and sigmoid.
template <class T>
struct ChunkGrad {
  T *dq, *dk_read, *dw;  // [C, K] of the scaled query, of k as a reader, of w = beta k
  T* dg;                 // [C, K]
  const T* neg_dv;       // [C, V]
  T* room;               // [C, K]
};

// dg [C, K] becomes dy; into dg's tensor, and summed over tokens into parts [K] and, over all,
// parts[K].
template <class T>
void gate_backward(const KdaBackward& a, const Sizes& s, const Chunk<T>& c,
                   const ChunkGrad<T>& grad, int64_t n0, int64_t hv, T* parts) {
  const int64_t K = s.K, n = c.C * K;
  const T A = fast_exp(a.A_log.as<T>()[hv]), lb = T(a.params.gate_lower_bound);
  const T* g = c.g;
  T *y = grad.room, *__restrict dg = grad.dg;
  gate_logits(a, s, n0, c.C, hv, y);
  for (int64_t e = 0; e < n; ++e) dg[e] = g[e] < kForgetsAll<T> ? T(0) : dg[e];
  if (a.params.gate == GateLaw::softplus) {
    for (int64_t e = 0; e < n; ++e) {
      const T slope = -A * fast_sigmoid(y[e]);
      y[e] = dg[e] == 0 ? T(0) : dg[e] * g[e];  // not 0 * infinity
      dg[e] *= slope;
    }
  } else {
    for (int64_t e = 0; e < n; ++e) {
      const T z = A * y[e], p = fast_sigmoid(z), dz = dg[e] * lb * p * (1 - p);
      y[e] = dz == 0 ? T(0) : dz * z;
      dg[e] = A * dz;
    }
  }
  std::fill_n(c.sum, K, T(0));
  for (int64_t i = 0; i < c.C; ++i) {
    add(parts, dg + i * K, parts, K);
    add(c.sum, y + i * K, c.sum, K);
    T* out = a.dg.t.row<T>(n0 + i) + hv * K;
    if (a.dg.add)
      add(out, dg + i * K, out, K);
    else
      std::memcpy(out, dg + i * K, size_t(K) * sizeof(T));
  }
  for (int64_t d = 0; d < K; ++d) parts[K] += c.sum[d];
}

// The chunk's gradients into the caller's tensors.
template <class T>
void store_chunk(const KdaBackward& a, const Sizes& s, const Chunk<T>& c, const ChunkGrad<T>& grad,
                 int64_t n0, int64_t hv, T* parts) {
  const int64_t K = s.K, V = s.V, group = s.HV / s.H, h = hv / group;
  const bool later = hv % group != 0;  // of the value heads that share a query head
  const T scale = 1 / std::sqrt(T(K));
  for (int64_t i = 0; i < c.C; ++i) {
    const int64_t n = n0 + i;
    const T b = c.beta[i];
    T* __restrict dk = grad.dk_read + i * K, *dw = grad.dw + i * K;
    const T db = dot(c.k + i * K, dw, K);
    put(a.dbeta.t.row<T>(n)[hv], db * b * (1 - b / T(a.params.beta_max)), a.dbeta.add);
    for (int64_t d = 0; d < K; ++d) dk[d] += b * dw[d];
    norm_backward(a.q.row<T>(n) + h * K, c.q_norm[i], grad.dq + i * K, scale, K,
                  a.dq.t.row<T>(n) + h * K, a.dq.add || later);
    norm_backward(a.k.row<T>(n) + h * K, c.k_norm[i], dk, T(1), K, a.dk.t.row<T>(n) + h * K,
                  a.dk.add || later);
    T* __restrict dv = a.dv.t.row<T>(n) + hv * V;
    const T* x = grad.neg_dv + i * V;
    if (a.dv.add)
      for (int64_t j = 0; j < V; ++j) dv[j] -= x[j];
    else
      for (int64_t j = 0; j < V; ++j) dv[j] = -x[j];
  }
  gate_backward(a, s, c, grad, n0, hv, parts);
}

}  // namespace sluice::kda
