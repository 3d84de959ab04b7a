// kernels/grad_norm/grad_norm.cu -- blocks of elements as on the CPU, their sums in a fixed tree,
// f64.
#include <cmath>

#include "kernels/base/cuda_check.h"
#include "kernels/device/reduce.cuh"
#include "kernels/grad_norm/grad_norm.h"

namespace sluice::cuda {

constexpr int kThreads = 512;

// CTA b: elements b * kGradNormElements ... of g; parts[b].
__global__ void __launch_bounds__(kThreads)
    squares_kernel(const float* g, int64_t n, double* parts) {
  const int64_t begin = int64_t(blockIdx.x) * kGradNormElements,
                end = min(begin + kGradNormElements, n);
  double sum = 0;
#pragma unroll 4
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) sum += double(g[i]) * g[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kThreads)
    sum_kernel(const double* parts, int64_t n, double* out) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < n; i += kThreads) sum += parts[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) *out = sum;
}

__global__ void clip_kernel(const double* sum_of_squares, double max_norm, StepState* state) {
  const double norm = sqrt(*sum_of_squares);
  state->grad_norm = float(norm);
  state->skip = !isfinite(norm);
  state->grad_scale = max_norm > 0 && norm > max_norm ? float(max_norm / norm) : 1;
}

void grad_norm(const Context& ctx, const GradNorm& a, Tensor parts) {
  double* to = parts.as<double>();
  for (const Tensor& g : a.grads) {
    const int64_t n = g.dim(0), blocks = (n + kGradNormElements - 1) / kGradNormElements;
    if (blocks == 0) continue;
    squares_kernel<<<unsigned(blocks), kThreads, 0, ctx.stream>>>(g.as<float>(), n, to);
    SLUICE_LAUNCHED(ctx.stream);
    to += blocks;
  }
  sum_kernel<<<1, kThreads, 0, ctx.stream>>>(parts.as<double>(), parts.dim(0),
                                             a.sum_of_squares.as<double>());
  SLUICE_LAUNCHED(ctx.stream);
}

void clip_factor(const Context& ctx, const ClipFactor& a) {
  clip_kernel<<<1, 1, 0, ctx.stream>>>(a.sum_of_squares.as<double>(), a.max_norm, a.state);
  SLUICE_LAUNCHED(ctx.stream);
}

}  // namespace sluice::cuda
