// kernels/device/wgmma.cuh -- products by a warpgroup (four warps, of which the first one's index
// is a multiple of 4): c [64, 64] += a [64, 16] b [16, 64], bf16 with f32 sums.
//
// a and c lie in registers. Warp w of the group has rows 16 w .. 16 w + 15: c[4 j .. 4 j + 3] is
// what mma.cuh has as c of columns 8 j .. 8 j + 7, and a is one 16 x 16 tile as there. So sums
// become the a of the next product by rounding pairs of them.
//
// b lies in shared memory in tiles [64, 64], rows of 128 bytes whose 16-byte pieces are permuted by
// the row (tile_at). A tile may be read as [k, n] or as [n, k].
#pragma once

#include "kernels/device/mma.cuh"

namespace sluice {

constexpr int kTile = 64 * 64;  // elements

// Where element (row, column) of a matrix of 64 rows lies: tiles of 64 columns after one another.
__host__ __device__ constexpr int tile_at(int row, int column) {
  return column / 64 * kTile + row * 64 + ((column % 64 / 8) ^ (row % 8)) * 8 + column % 8;
}

// Tiles at multiples of 1024 bytes. Eight rows are 1024 bytes apart; 1 << 62: swizzled by 128
// bytes.
__device__ inline uint64_t tile_descriptor(const bf16* tile) {
  constexpr uint64_t kConstant = uint64_t(1) << 62 | uint64_t(1024 / 16) << 32 | uint64_t(1) << 16;
  return kConstant | (shared_address(tile) & 0x3ffff) >> 4;
}
// Step s of 16 along the reduction: 16 columns of a tile stored [n, k], 16 rows of one [k, n].
__device__ inline uint64_t columns_at(uint64_t tile, int s) {
  return tile + uint64_t(s / 4 * (kTile * 2 / 16) + s % 4 * 2);
}
__device__ inline uint64_t rows_at(uint64_t tile, int s) {
  return tile + uint64_t(s * (16 * 128 / 16));
}

// Before the first product after registers of a or c changed.
__device__ inline void wgmma_begin() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
// Ends a group of products.
__device__ inline void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Until all but the last `groups` groups are done.
template <int groups>
__device__ inline void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(groups) : "memory");
}
// Keeps the compiler from moving uses of sums across this place.
template <int n>
__device__ inline void pin(float (&c)[n]) {
#pragma unroll
  for (int i = 0; i < n; ++i) asm volatile("" : "+f"(c[i]));
}

// c = (add ? c : 0) + sign a b. k_rows: b is stored [k, n].
template <int sign, bool k_rows>
__device__ inline void wgmma(float (&c)[32], const uint32_t (&a)[4], uint64_t b, bool add = true) {
  asm volatile(
      "{.reg .pred p;\n"
      "setp.ne.b32 p, %37, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
      "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
      "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}, "
      "{%32,%33,%34,%35}, %36, p, 1, %38, %39;}\n"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]), "+f"(c[4]), "+f"(c[5]), "+f"(c[6]),
        "+f"(c[7]), "+f"(c[8]), "+f"(c[9]), "+f"(c[10]), "+f"(c[11]), "+f"(c[12]), "+f"(c[13]),
        "+f"(c[14]), "+f"(c[15]), "+f"(c[16]), "+f"(c[17]), "+f"(c[18]), "+f"(c[19]), "+f"(c[20]),
        "+f"(c[21]), "+f"(c[22]), "+f"(c[23]), "+f"(c[24]), "+f"(c[25]), "+f"(c[26]), "+f"(c[27]),
        "+f"(c[28]), "+f"(c[29]), "+f"(c[30]), "+f"(c[31])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(int(add)), "n"(sign),
        "n"(int(k_rows)));
}

// Sums as the a of a product over their columns: step s of 16.
__device__ inline void pack_step(uint32_t (&a)[4], const float* c, int s) {
#pragma unroll
  for (int r = 0; r < 4; ++r) a[r] = pack(c[8 * s + 2 * r], c[8 * s + 2 * r + 1]);
}

}  // namespace sluice
