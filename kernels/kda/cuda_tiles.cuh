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

// As in mma.cuh, the tile at (row, column), multiples of 16: a lane's row is lane % 8 mod 8 then,
// and one xor takes it to another column.
template <int W>
__device__ inline const bf16* lane_at(const bf16* m, int row, int column, int lane_row,
                                      int lane_group) {
  const int group = (lane_row % 8 ^ lane_group) << 3;
  return m + (row + lane_row) * W + (group ^ column);
}
template <int W>
__device__ inline void tile_a(uint32_t (&r)[4], const bf16* m, int row, int column) {
  const int l = threadIdx.x % 32;
  ldmatrix(r, lane_at<W>(m, row, column, l % 16, l / 16));
}
template <int W>
__device__ inline void tile_a_transposed(uint32_t (&r)[4], const bf16* m, int row, int column) {
  const int l = threadIdx.x % 32;
  ldmatrix_transposed(r, lane_at<W>(m, row, column, l % 8 + l / 16 * 8, l / 8 % 2));
}
template <int W>
__device__ inline void tile_b(uint32_t (&r)[4], const bf16* m, int row, int column) {
  const int l = threadIdx.x % 32;
  ldmatrix_transposed(r, lane_at<W>(m, row, column, l % 16, l / 16));
}
template <int W>
__device__ inline void tile_b_transposed(uint32_t (&r)[4], const bf16* m, int row, int column) {
  const int l = threadIdx.x % 32;
  ldmatrix(r, lane_at<W>(m, row, column, l % 8 + l / 16 * 8, l / 8 % 2));
}

// [rows, W] from global memory, rows `stride` apart; zeros from row `there` on. Starts copies.
template <int W, int threads, int rows>
__device__ inline void load_matrix(bf16* to, const bf16* from, int64_t stride, int there) {
  constexpr int kGroups = W / 8, kStep = threads / kGroups;
  static_assert(kStep % 8 == 0);
  const int first = int(threadIdx.x) / kGroups, column = int(threadIdx.x) % kGroups * 8;
  to += swizzled<W>(first, column);
  const bf16* start = from + column;
  from = start + first * stride;
#pragma unroll
  for (int i = 0; i < rows; i += kStep) {
    const bool mine = first + i < there;
    copy_16_bytes(to + i * W, mine ? from : start, mine);
    from += kStep * stride;
  }
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
__device__ inline void put_pair(__half* p, float x, float y) {
  *reinterpret_cast<uint32_t*>(p) = pack_fp16(x, y);
}
__device__ inline void put_pair(float* p, float x, float y) {
  *reinterpret_cast<float2*>(p) = {x, y};
}

// Without what denormal arguments and results cost: those are 0.
__device__ inline float exp2_flushed(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ inline float log2_flushed(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ inline float inverse_flushed(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace sluice::cuda::kda_gpu
