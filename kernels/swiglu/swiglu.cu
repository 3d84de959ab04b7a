// kernels/swiglu/swiglu.cu -- memory bound: a thread E columns of g and of u.
#include "kernels/base/cuda_check.h"
#include "kernels/device/vec.cuh"
#include "kernels/swiglu/swiglu.h"

namespace sluice::cuda {

constexpr int kThreads = 256;

template <int E>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(Rows gate_up, Rows y, uint32_t F, uint32_t total) {
  for (uint32_t i = blockIdx.x * kThreads + threadIdx.x; i < total; i += gridDim.x * kThreads) {
    const uint32_t n = i / (F / E), f = i % (F / E) * E;
    float g[E], u[E];
    load(g, gate_up[n] + f), load(u, gate_up[n] + F + f);
#pragma unroll
    for (int e = 0; e < E; ++e) u[e] *= g[e] * sigmoid(g[e]);
    store(y[n] + f, u);
  }
}

template <int E>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(Rows gate_up, Rows dy, Rows dgate_up, int add, Rows y, uint32_t F,
                    uint32_t total) {
  for (uint32_t i = blockIdx.x * kThreads + threadIdx.x; i < total; i += gridDim.x * kThreads) {
    const uint32_t n = i / (F / E), f = i % (F / E) * E;
    float g[E], u[E], d[E], out[E];
    load(g, gate_up[n] + f), load(u, gate_up[n] + F + f), load(d, dy[n] + f);
#pragma unroll
    for (int e = 0; e < E; ++e) {
      const float s = sigmoid(g[e]), dg = d[e] * u[e] * s * (1 + g[e] * (1 - s));
      out[e] = u[e] * (g[e] * s);
      u[e] = d[e] * g[e] * s;
      g[e] = dg;
    }
    if (y.data) store(y[n] + f, out);
    put(dgate_up[n] + f, g, add);
    put(dgate_up[n] + F + f, u, add);
  }
}

void swiglu_forward(const Context& ctx, const SwigluForward& a) {
  const int64_t N = a.y.dim(0), F = a.y.dim(1);
  SLUICE_CHECK(N * F < int64_t(1) << 31, "y is ", to_string(a.y));
  if (N * F == 0) return;
  const bool aligned = F % 8 == 0 && rows_aligned({a.gate_up, a.y});
  const int64_t total = aligned ? N * F / 8 : N * F;
  (aligned ? forward_kernel<8>
           : forward_kernel<1>)<<<grid_for(total, kThreads), kThreads, 0, ctx.stream>>>(
      rows_of(a.gate_up), rows_of(a.y), uint32_t(F), uint32_t(total));
  SLUICE_LAUNCHED(ctx.stream);
}

void swiglu_backward(const Context& ctx, const SwigluBackward& a) {
  const int64_t N = a.dy.dim(0), F = a.dy.dim(1);
  SLUICE_CHECK(N * F < int64_t(1) << 31, "dy is ", to_string(a.dy));
  if (N * F == 0) return;
  const bool aligned = F % 8 == 0 && rows_aligned({a.gate_up, a.dy, a.dgate_up.t, a.y});
  const int64_t total = aligned ? N * F / 8 : N * F;
  (aligned ? backward_kernel<8>
           : backward_kernel<1>)<<<grid_for(total, kThreads), kThreads, 0, ctx.stream>>>(
      rows_of(a.gate_up), rows_of(a.dy), rows_of(a.dgate_up.t), a.dgate_up.add, rows_or_none(a.y),
      uint32_t(F), uint32_t(total));
  SLUICE_LAUNCHED(ctx.stream);
}

}  // namespace sluice::cuda
