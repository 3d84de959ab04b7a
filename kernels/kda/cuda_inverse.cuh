// kernels/kda/cuda_inverse.cuh -- A = (I + L)^-1 of a chunk, in f32, then rounded for what it
// enters.
//
// By substitution: with nearly equal keys the powers of L that a series sums grow like binomials.
#pragma once

#include "kernels/kda/cuda_factors.cuh"

namespace sluice::cuda::kda_gpu {

// out [n, n] = +-a b, for `count` such products `step` elements apart; four columns a thread.
template <int n, int threads>
__device__ void products(float* out, const float* a, const float* b, float sign, int count,
                         int step) {
  constexpr int kEach = n * n / 4;
  for (int task = threadIdx.x; task < count * kEach; task += threads) {
    const int offset = task / kEach * step, t = task % kEach;
    const int i = t / (n / 4), j = t % (n / 4) * 4;
    float4 sum{0, 0, 0, 0};
#pragma unroll 8
    for (int x = 0; x < n; ++x) {
      const float ax = a[offset + i * kInverse + x];
      const float4 bx = *reinterpret_cast<const float4*>(b + offset + x * kInverse + j);
      sum.x += ax * bx.x, sum.y += ax * bx.y, sum.z += ax * bx.z, sum.w += ax * bx.w;
    }
    *reinterpret_cast<float4*>(out + offset + i * kInverse + j) = {sign * sum.x, sign * sum.y,
                                                                   sign * sum.z, sign * sum.w};
  }
  __syncthreads();
}

// A = (I + L)^-1: columns of the four 16 x 16 blocks by substitution, then twice
// [[A0, 0], [-A1 L10 A0, A1]].
template <int threads>
__device__ void invert(const float* L, float* A, float* room) {
  for (int e = threadIdx.x; e < kC * kInverse; e += threads) A[e] = 0;
  __syncthreads();
  if (threadIdx.x < kC) {
    const int begin = int(threadIdx.x) / 16 * 16, j = int(threadIdx.x) % 16;
    float x[16];
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      float sum = i == j ? 1.f : 0.f;
#pragma unroll
      for (int k = 0; k < i; ++k) sum -= L[(begin + i) * kInverse + begin + k] * x[k];
      x[i] = sum;
      A[(begin + i) * kInverse + begin + j] = sum;
    }
  }
  __syncthreads();
  constexpr int kBelow = 16 * kInverse, kBelow32 = 32 * kInverse, kNext = 32 * kInverse + 32;
  products<16, threads>(room + kBelow, L + kBelow, A, 1, 2, kNext);
  products<16, threads>(A + kBelow, A + kBelow + 16, room + kBelow, -1, 2, kNext);
  products<32, threads>(room + kBelow32, L + kBelow32, A, 1, 1, 0);
  products<32, threads>(A + kBelow32, A + kBelow32 + 32, room + kBelow32, -1, 1, 0);
}

// A [64, 64], rounded: for the products that follow, and for backward if it is wanted.
template <int D>
__device__ void round_inverse(Prepare<D>& s, bf16* A) {
  for (int e = threadIdx.x; e < kC * kC / 8; e += kPrepareThreads<D>) {
    const int i = e / (kC / 8), j = e % (kC / 8) * 8;
    const float4* from = reinterpret_cast<const float4*>(s.A + i * kInverse + j);
    const float4 x = from[0], y = from[1];
    if (A)
      *reinterpret_cast<uint4*>(A + tile_at(i, j)) = {pack(x.x, x.y), pack(x.z, x.w),
                                                      pack(y.x, y.y), pack(y.z, y.w)};
    constexpr float z = kFp16Scale;
    *reinterpret_cast<uint4*>(s.inverse + tile_at(i, j)) = {
        pack_fp16(z * x.x, z * x.y), pack_fp16(z * x.z, z * x.w), pack_fp16(z * y.x, z * y.y),
        pack_fp16(z * y.z, z * y.w)};
  }
  __syncthreads();
}

}  // namespace sluice::cuda::kda_gpu
