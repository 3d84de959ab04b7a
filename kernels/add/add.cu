// kernels/add/add.cu -- memory bound: 16 bytes a thread and access, a tail of single elements.
#include "kernels/add/add.h"
#include "kernels/base/cuda_check.h"
#include "kernels/device/vec.cuh"

namespace sluice::cuda {

constexpr int kThreads = 256;

// E elements at a time as long as they last; the rest, fewer than E, one by one.
template <int E, class Body>
__device__ void for_elements(int64_t n, Body body) {
  const int64_t i0 = int64_t(blockIdx.x) * kThreads + threadIdx.x,
                step = int64_t(gridDim.x) * kThreads;
  for (int64_t i = i0; i < n / E; i += step) body.template operator()<E>(i * E);
  for (int64_t i = n / E * E + i0; i < n; i += step) body.template operator()<1>(i);
}

template <int E>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(const bf16* a, const bf16* b, bf16* y, int64_t n) {
  for_elements<E>(n, [=]<int W>(int64_t i) {
    float x[W], z[W];
    load(x, a + i), load(z, b + i);
#pragma unroll
    for (int e = 0; e < W; ++e) x[e] += z[e];
    store(y + i, x);
  });
}

// da and db may be one memory: each thread writes da first, then adds to db.
template <int E>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(const bf16* dy, bf16* da, int add_a, bf16* db, int add_b, int64_t n) {
  for_elements<E>(n, [=]<int W>(int64_t i) {
    float x[W], z[W];
    load(x, dy + i), load(z, dy + i);
    put(da + i, x, add_a);
    put(db + i, z, add_b);
  });
}

static bool aligned(std::initializer_list<Tensor> tensors) {
  for (const Tensor& t : tensors)
    if (reinterpret_cast<uintptr_t>(t.data) % 16 != 0) return false;
  return true;
}

void add_forward(const Context& ctx, const AddForward& a) {
  const int64_t n = a.y.numel();
  if (n == 0) return;
  (aligned({a.a, a.b, a.y})
       ? forward_kernel<8>
       : forward_kernel<1>)<<<grid_for(n / 8 + 1, kThreads), kThreads, 0, ctx.stream>>>(
      a.a.as<bf16>(), a.b.as<bf16>(), a.y.as<bf16>(), n);
  SLUICE_LAUNCHED(ctx.stream);
}

void add_backward(const Context& ctx, const AddBackward& a) {
  const int64_t n = a.dy.numel();
  if (n == 0) return;
  (aligned({a.dy, a.da.t, a.db.t})
       ? backward_kernel<8>
       : backward_kernel<1>)<<<grid_for(n / 8 + 1, kThreads), kThreads, 0, ctx.stream>>>(
      a.dy.as<bf16>(), a.da.t.as<bf16>(), a.da.add, a.db.t.as<bf16>(), a.db.add, n);
  SLUICE_LAUNCHED(ctx.stream);
}

}  // namespace sluice::cuda
