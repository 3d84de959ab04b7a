// kernels/mla_cache/cuda.cuh -- what the CUDA kernels share: sizes, splits, whose row it is.
#pragma once

#include <cmath>

#include "kernels/base/cuda_check.h"
#include "kernels/device/mma.cuh"
#include "kernels/device/vec.cuh"
#include "kernels/mla_cache/cuda_sizes.h"

namespace sluice::cuda::mla_cache_gpu {

constexpr float kLog2e = 1.4426950408889634f;

struct Problem {
  const int *cu, *past;  // [S + 1], [S]
  bf16* latents;         // [S, T, r + rope]
  int S, H, r, nope, rope, V;
  int64_t slot_stride;  // T * (r + rope)
  float theta;          // 0: not rotated

  __host__ __device__ int cached() const { return r + rope; }
};

template <class Args>
Problem problem_of(const Args& a, int64_t H, int64_t r, int64_t nope, int64_t V) {
  const int64_t T = a.latents.dim(1), rope = a.latents.dim(2) - r;
  SLUICE_CHECK(r % 8 == 0 && r <= kMostLatent && rope % 8 == 0 && rope <= kMostRope &&
                   nope % 8 == 0 && V % 8 == 0,
               "r is ", r, ", rope ", rope, ", nope ", nope, ", V ", V,
               ", expected multiples of 8, r up to ", kMostLatent, " and rope up to ", kMostRope);
  SLUICE_CHECK(a.latents.dense() && T < int64_t(1) << 31, "latents are ", to_string(a.latents));
  return {a.cu_seqlens.template as<int32_t>(),
          a.past.template as<int32_t>(),
          a.latents.template as<bf16>(),
          int(a.latents.dim(0)),
          int(H),
          int(r),
          int(nope),
          int(rope),
          int(V),
          T * (r + rope),
          float(a.rope_theta)};
}

// The slot that row n belongs to: the last one that begins at or before it, which is not empty.
__device__ inline int slot_of(const Problem& p, int n) {
  int low = 0, high = p.S;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (p.cu[middle] <= n ? low : high) = middle;
  }
  return low;
}

// Pair (x, y), the p-th of a slice [rope], turned for a position.
__device__ inline float2 rotate(float2 v, int p, int rope, int position, float theta) {
  double s, c;
  sincos(double(position) * pow(double(theta), -2.0 * double(p) / double(rope)), &s, &c);
  return {float(v.x * c - v.y * s), float(v.x * s + v.y * c)};
}

template <class Kernel>
void allow_shared(Kernel kernel, size_t bytes) {
  SLUICE_CUDA(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes)));
}

}  // namespace sluice::cuda::mla_cache_gpu
