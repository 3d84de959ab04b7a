// kernels/kda/cuda_tiles.cuh -- matrices in shared memory without pads, and 16 x 16 tiles of them.
//
// Rows of W elements (a multiple of 64), groups of 8 elements xored with the row's number mod 8:
// eight rows of one group lie in different banks.
#pragma once

#include "kernels/device/mma.cuh"

namespace sluice::cuda::kda_gpu {

template <int W>
__device__ inline int swizzled(int row, int column) {
  return row * W + (((column >> 3) ^ (row & 7)) << 3) + (column & 7);
}

// As in mma.cuh, the tile at (row, column).
template <int W>
__device__ inline void tile_a(uint32_t (&r)[4], const bf16* m, int row, int column) {
  const int l = threadIdx.x % 32;
  ldmatrix(r, m + swizzled<W>(row + l % 16, column + l / 16 * 8));
}
template <int W>
__device__ inline void tile_a_transposed(uint32_t (&r)[4], const bf16* m, int row, int column) {
  const int l = threadIdx.x % 32;
  ldmatrix_transposed(r, m + swizzled<W>(row + l % 8 + l / 16 * 8, column + l / 8 % 2 * 8));
}
template <int W>
__device__ inline void tile_b(uint32_t (&r)[4], const bf16* m, int row, int column) {
  const int l = threadIdx.x % 32;
  ldmatrix_transposed(r, m + swizzled<W>(row + l % 16, column + l / 16 * 8));
}
template <int W>
__device__ inline void tile_b_transposed(uint32_t (&r)[4], const bf16* m, int row, int column) {
  const int l = threadIdx.x % 32;
  ldmatrix(r, m + swizzled<W>(row + l % 8 + l / 16 * 8, column + l / 8 % 2 * 8));
}

// [rows, W] from global memory, rows `stride` apart; zeros from row `there` on. Starts copies.
template <int W, int threads>
__device__ inline void load_matrix(bf16* to, const bf16* from, int64_t stride, int rows,
                                   int there) {
  constexpr int kGroups = W / 8;
  const int column = int(threadIdx.x) % kGroups * 8;
#pragma unroll 4
  for (int i = int(threadIdx.x) / kGroups; i < rows; i += threads / kGroups)
    copy_16_bytes(to + swizzled<W>(i, column), from + min(i, there - 1) * stride + column,
                  i < there);
}

// Two neighbours in a row.
__device__ inline float2 pair_at(const bf16* p) {
  return unpack(*reinterpret_cast<const uint32_t*>(p));
}
__device__ inline float2 pair_at(const float* p) {
  return *reinterpret_cast<const float2*>(p);
}
__device__ inline void put_pair(bf16* p, float x, float y) {
  *reinterpret_cast<uint32_t*>(p) = pack(x, y);
}
__device__ inline void put_pair(float* p, float x, float y) {
  *reinterpret_cast<float2*>(p) = {x, y};
}

// 2^x; results under 2^-126 are 0.
__device__ inline float exp2_flushed(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace sluice::cuda::kda_gpu
