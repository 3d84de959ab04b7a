// kernels/device/reduce.cuh -- sums across the lanes of a warp, in a fixed tree.
#pragma once

namespace sluice {

// Every lane gets the sum; all 32 lanes must call it.
__device__ inline float warp_sum(float x) {
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
  return x;
}

}  // namespace sluice
