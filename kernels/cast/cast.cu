// kernels/cast/cast.cu -- memory bound.
#include "kernels/base/cuda_check.h"
#include "kernels/cast/cast.h"
#include "kernels/device/vec.cuh"

namespace sluice::cuda {

constexpr int kThreads = 256;

__device__ void convert(float from, bf16& to) {
  to = __float2bfloat16(from);
}
__device__ void convert(bf16 from, float& to) {
  to = __bfloat162float(from);
}

// E at a time, and what is left over one by one.
template <int E, class From, class To>
__global__ void __launch_bounds__(kThreads) cast_kernel(const From* from, To* to, int64_t n) {
  const int64_t first = int64_t(blockIdx.x) * kThreads + threadIdx.x,
                step = int64_t(gridDim.x) * kThreads;
  for (int64_t i = first; i < n / E; i += step) {
    float x[E];
    load(x, from + i * E);
    store(to + i * E, x);
  }
  for (int64_t i = n / E * E + first; i < n; i += step) convert(from[i], to[i]);
}

template <class From, class To>
static void launch(const Context& ctx, const Tensor& from, const Tensor& to) {
  const int64_t n = from.dim(0);
  if (n == 0) return;
  const bool aligned = rows_aligned({from, to});
  (aligned ? cast_kernel<8, From, To>
           : cast_kernel<1, From, To>)<<<grid_for(n / 8 + 1, kThreads), kThreads, 0, ctx.stream>>>(
      from.as<From>(), to.as<To>(), n);
  SLUICE_LAUNCHED(ctx.stream);
}

void cast(const Context& ctx, const Cast& a) {
  launch<float, bf16>(ctx, a.from, a.to);
}

void widen(const Context& ctx, const Widen& a) {
  launch<bf16, float>(ctx, a.from, a.to);
}

}  // namespace sluice::cuda
