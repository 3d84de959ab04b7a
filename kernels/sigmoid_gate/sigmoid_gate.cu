// kernels/sigmoid_gate/sigmoid_gate.cu -- memory bound: a thread E columns of a row.
#include "kernels/base/cuda_check.h"
#include "kernels/device/vec.cuh"
#include "kernels/sigmoid_gate/sigmoid_gate.h"

namespace sluice::cuda {

constexpr int kThreads = 256;

template <int E>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(Rows x, Rows gate, Rows y, uint32_t C, uint32_t total) {
  for (uint32_t i = blockIdx.x * kThreads + threadIdx.x; i < total; i += gridDim.x * kThreads) {
    const uint32_t n = i / (C / E), c = i % (C / E) * E;
    float v[E], g[E];
    load(v, x[n] + c), load(g, gate[n] + c);
#pragma unroll
    for (int e = 0; e < E; ++e) v[e] *= sigmoid(g[e]);
    store(y[n] + c, v);
  }
}

// dx and dgate may be one memory: each thread writes dx first, then adds to dgate.
template <int E>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(Rows x, Rows gate, Rows dy, Rows dx, int add_x, Rows dgate, int add_gate,
                    uint32_t C, uint32_t total) {
  for (uint32_t i = blockIdx.x * kThreads + threadIdx.x; i < total; i += gridDim.x * kThreads) {
    const uint32_t n = i / (C / E), c = i % (C / E) * E;
    float v[E], g[E], d[E];
    load(v, x[n] + c), load(g, gate[n] + c), load(d, dy[n] + c);
#pragma unroll
    for (int e = 0; e < E; ++e) {
      const float s = sigmoid(g[e]);
      g[e] = d[e] * v[e] * s * (1 - s);
      d[e] *= s;
    }
    put(dx[n] + c, d, add_x);
    put(dgate[n] + c, g, add_gate);
  }
}

void sigmoid_gate_forward(const Context& ctx, const SigmoidGateForward& a) {
  const int64_t N = a.x.dim(0), C = a.x.dim(1);
  SLUICE_CHECK(N * C < int64_t(1) << 31, "x is ", to_string(a.x));
  if (N * C == 0) return;
  const bool aligned = C % 8 == 0 && rows_aligned({a.x, a.gate, a.y});
  const int64_t total = aligned ? N * C / 8 : N * C;
  (aligned ? forward_kernel<8>
           : forward_kernel<1>)<<<grid_for(total, kThreads), kThreads, 0, ctx.stream>>>(
      rows_of(a.x), rows_of(a.gate), rows_of(a.y), uint32_t(C), uint32_t(total));
  SLUICE_LAUNCHED(ctx.stream);
}

void sigmoid_gate_backward(const Context& ctx, const SigmoidGateBackward& a) {
  const int64_t N = a.x.dim(0), C = a.x.dim(1);
  SLUICE_CHECK(N * C < int64_t(1) << 31, "x is ", to_string(a.x));
  if (N * C == 0) return;
  const bool aligned = C % 8 == 0 && rows_aligned({a.x, a.gate, a.dy, a.dx.t, a.dgate.t});
  const int64_t total = aligned ? N * C / 8 : N * C;
  (aligned ? backward_kernel<8>
           : backward_kernel<1>)<<<grid_for(total, kThreads), kThreads, 0, ctx.stream>>>(
      rows_of(a.x), rows_of(a.gate), rows_of(a.dy), rows_of(a.dx.t), a.dx.add, rows_of(a.dgate.t),
      a.dgate.add, uint32_t(C), uint32_t(total));
  SLUICE_LAUNCHED(ctx.stream);
}

}  // namespace sluice::cuda
