// kernels/mla_cache/cuda_append.cu -- rows copied into place, their rope slice rotated.
#include "kernels/mla_cache/cuda.cuh"

namespace sluice::cuda {

using namespace mla_cache_gpu;

namespace {

__global__ void __launch_bounds__(128) append_kernel(Problem p, Rows c, Rows k_rope) {
  const int n = blockIdx.x, slot = slot_of(p, n), position = p.past[slot] + n - p.cu[slot];
  bf16* to = p.latents + slot * p.slot_stride + int64_t(position) * p.cached();
  for (int d = threadIdx.x; d < p.r; d += 128) to[d] = c[n][d];
  for (int i = threadIdx.x; i < p.rope / 2; i += 128) {
    float x[2];
    load(x, k_rope[n] + 2 * i);
    float2 v{x[0], x[1]};
    if (p.theta > 0) v = rotate(v, i, p.rope, position, p.theta);
    to[p.r + 2 * i] = __float2bfloat16(v.x), to[p.r + 2 * i + 1] = __float2bfloat16(v.y);
  }
}

}  // namespace

void latent_append(const Context& ctx, const LatentAppend& a) {
  const Problem p = problem_of(a, 1, a.c.dim(1), 0, 0);
  if (a.c.dim(0) == 0) return;
  SLUICE_CHECK(a.k_rope.stride[0] % 2 == 0 && reinterpret_cast<uintptr_t>(a.k_rope.data) % 4 == 0,
               "rows of k_rope are not aligned");
  append_kernel<<<unsigned(a.c.dim(0)), 128, 0, ctx.stream>>>(p, rows_of(a.c), rows_of(a.k_rope));
  SLUICE_LAUNCHED(ctx.stream);
}

}  // namespace sluice::cuda
