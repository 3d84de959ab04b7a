// kernels/device/reduce.cuh -- sums across threads, in a fixed tree.
#pragma once

#include <cstdint>

namespace sluice {

// Every lane gets the sum of its group of `width` lanes (a power of two); all 32 lanes must call
// it.
template <class T>
__device__ inline T warp_sum(T x, int width = 32) {
  for (int offset = width / 2; offset > 0; offset /= 2)
    x += __shfl_xor_sync(0xffffffffu, x, offset);
  return x;
}

// Thread 0 gets the sum over the block, of at most 1024 threads in whole warps.
template <class T>
__device__ inline T block_sum(T x) {
  __shared__ T warps[32];
  x = warp_sum(x);
  const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
  __syncthreads();  // of an earlier call
  if (lane == 0) warps[warp] = x;
  __syncthreads();
  if (warp == 0) x = warp_sum(lane < int(blockDim.x) / 32 ? warps[lane] : T(0));
  return x;
}

}  // namespace sluice
