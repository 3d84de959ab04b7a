// kernels/cast/cast.cu -- memory bound.
#include "kernels/base/cuda_check.h"
#include "kernels/cast/cast.h"
#include "kernels/device/vec.cuh"

namespace sluice::cuda {

constexpr int kThreads = 256;

// E at a time, and what is left over one by one.
template <int E>
__global__ void __launch_bounds__(kThreads) cast_kernel(const float* from, bf16* to, int64_t n) {
  const int64_t first = int64_t(blockIdx.x) * kThreads + threadIdx.x,
                step = int64_t(gridDim.x) * kThreads;
  for (int64_t i = first; i < n / E; i += step) {
    float x[E];
    load(x, from + i * E);
    store(to + i * E, x);
  }
  for (int64_t i = n / E * E + first; i < n; i += step) to[i] = __float2bfloat16(from[i]);
}

void cast(const Context& ctx, const Cast& a) {
  const int64_t n = a.from.dim(0);
  if (n == 0) return;
  const bool aligned = rows_aligned({a.from, a.to});
  (aligned ? cast_kernel<8>
           : cast_kernel<1>)<<<grid_for(n / 8 + 1, kThreads), kThreads, 0, ctx.stream>>>(
      a.from.as<float>(), a.to.as<bf16>(), n);
  SLUICE_LAUNCHED(ctx.stream);
}

}  // namespace sluice::cuda
