// kernels/device/sum_parts.cuh -- the second half of a sum over rows: blocks of rows were summed on
// their own, here the blocks are added in a fixed order.
#pragma once

#include "kernels/base/cuda_check.h"
#include "kernels/tensor/context.h"

namespace sluice {

// out[c] (+)= sum over blocks b of parts[b, c]: slice s takes b = s, s + 16, ... in order, then the
// slices are added in order. A CTA of (32, 16) threads for 32 columns.
constexpr int kSumSlices = 16;
static __global__ void __launch_bounds__(32 * kSumSlices)
    sum_parts_kernel(const float* parts, int64_t blocks, int64_t C, float* out, int add) {
  __shared__ float slices[kSumSlices][32];
  const int64_t c = int64_t(blockIdx.x) * 32 + threadIdx.x;
  float sum = 0;
  if (c < C) {
#pragma unroll 4
    for (int64_t b = threadIdx.y; b < blocks; b += kSumSlices) sum += parts[b * C + c];
  }
  slices[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || c >= C) return;
  for (int s = 1; s < kSumSlices; ++s) sum += slices[s][threadIdx.x];
  out[c] = add ? out[c] + sum : sum;
}

// The same for `out`, a gradient of parts.dim(1) elements.
inline void sum_parts(const Context& ctx, const Tensor& parts, const Grad& out) {
  const int64_t C = parts.dim(1);
  if (C == 0) return;
  sum_parts_kernel<<<unsigned((C + 31) / 32), dim3(32, kSumSlices), 0, ctx.stream>>>(
      parts.as<float>(), parts.dim(0), C, out.t.as<float>(), out.add);
  SLUICE_LAUNCHED(ctx.stream);
}

}  // namespace sluice
