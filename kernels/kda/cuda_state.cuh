// kernels/kda/cuda_state.cuh -- what both scans share: a state in the sums of one warpgroup, and
// how its columns reach memory.
//
// A CTA has kColumns columns of one value head's state [K, V]: a column depends on no other.
// Everything is computed transposed: the state's transpose lies in the f32 sums of four warps (rows
// are columns of the state), and what one product sums, rounded, is the next one's operand in
// registers, so that shared memory holds only what cuda_prepare.cu made. A fifth warp fetches that
// up to two chunks ahead.
#pragma once

#include "kernels/device/barrier.cuh"
#include "kernels/device/wgmma.cuh"
#include "kernels/kda/cuda.cuh"

namespace sluice::cuda::kda_gpu {

constexpr int kColumns = 64, kStages = 2, kConsumers = 128, kScanThreads = kConsumers + 32;
constexpr int kVRows = kColumns + 8;  // pitch of v or dO
constexpr int kOutPitch = 16 + 8;     // a warp's 16 columns on their way out

// Stage and parity of the i-th chunk that a CTA takes.
struct Turn {
  int index, stage, parity;
  __device__ explicit Turn(int i) : index(i), stage(i % kStages), parity(i / kStages % 2) {}
};

// The same in all lanes for the compiler too: where it sees a branch that lanes could take apart,
// it has one product wait for the other.
__device__ inline int warp_index() {
  return __shfl_sync(~0u, int(threadIdx.x) / 32, 0);
}

// Lets the fetching warp refill a part: each warp, once its products of it are done.
__device__ inline void release(Barrier& empty) {
  __syncwarp();
  if (threadIdx.x % 32 == 0) empty.arrive();
}

// kColumns columns of a chunk's rows of v or dO, by one warp; zeros for missing tokens.
__device__ inline void fetch_columns(bf16* to, Rows from, ChunkAt at, int column) {
#pragma unroll 4
  for (int e = threadIdx.x % 32; e < kC * kColumns / 8; e += 32) {
    const int i = e / (kColumns / 8), c = e % (kColumns / 8) * 8;
    copy_16_bytes(to + i * kVRows + c, from[at.n0 + min(i, at.C - 1)] + column + c, i < at.C);
  }
}

// A warp's 16 columns of such rows, transposed, as the a of a product over tokens.
__device__ inline void load_transposed(uint32_t (&a)[4][4], const bf16* v) {
  const int lane = threadIdx.x % 32, column = threadIdx.x / 32 * 16;
#pragma unroll
  for (int s = 0; s < 4; ++s)
    ldmatrix_transposed(
        a[s], v + (16 * s + lane / 16 * 8 + lane % 8) * kVRows + column + lane / 8 % 2 * 8);
}

// From shared memory, here: the compiler would move the load to where it is used.
__device__ inline uint4 load_16_bytes(const bf16* p) {
  uint4 x;
  asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
               : "r"(shared_address(p))
               : "memory");
  return x;
}

// A warp's operands [16, 16 * steps] transposed to rows `stride` apart, 16 columns each; row i is
// left out from `rows` on.
template <int steps>
__device__ void store_transposed(const uint32_t (&a)[steps][4], bf16* room, bf16* to,
                                 int64_t stride, int rows) {
  const int lane = threadIdx.x % 32;
  __syncwarp();
#pragma unroll
  for (int s = 0; s < steps; ++s)
    stmatrix_transposed(a[s],
                        room + (16 * s + lane / 16 * 8 + lane % 8) * kOutPitch + lane / 8 % 2 * 8);
  __syncwarp();
  to += lane / 2 * stride + lane % 2 * 8;
#pragma unroll
  for (int first = 0; first < steps; first += 4) {  // loads before stores: one wait
    uint4 x[4];
#pragma unroll
    for (int s = 0; s < 4; ++s)
      x[s] = load_16_bytes(room + (16 * (first + s) + lane / 2) * kOutPitch + lane % 2 * 8);
#pragma unroll
    for (int s = first; s < first + 4; ++s)
      if (16 * s + lane / 2 < rows) *reinterpret_cast<uint4*>(to + 16 * s * stride) = x[s - first];
  }
}

// The transpose of a state's columns [64, D] in a warpgroup; element e of half h is the state's at
// row(h, e), column(e).
template <int D>
struct State {
  static constexpr int kHalves = D / 64, kSteps = D / 16;
  float half[kHalves][32];

  __device__ static int row(int h, int e) {
    return h * 64 + e / 4 * 8 + int(threadIdx.x) % 4 * 2 + e % 2;
  }
  __device__ static int column(int e) {
    return int(threadIdx.x) / 32 * 16 + int(threadIdx.x) % 32 / 4 + e / 2 % 2 * 8;
  }
  __device__ void load(const float* from) {
#pragma unroll
    for (int h = 0; h < kHalves; ++h)
#pragma unroll
      for (int e = 0; e < 32; ++e) half[h][e] = from ? from[row(h, e) * D + column(e)] : 0;
  }
  __device__ void store(float* to, bool add = false) const {
#pragma unroll
    for (int h = 0; h < kHalves; ++h)
#pragma unroll
      for (int e = 0; e < 32; ++e) {
        float& x = to[row(h, e) * D + column(e)];
        x = add ? x + half[h][e] : half[h][e];
      }
  }
  __device__ void decay(const float* gamma) {
#pragma unroll
    for (int h = 0; h < kHalves; ++h)
#pragma unroll
      for (int e = 0; e < 32; e += 4) {
        const float2 x = *reinterpret_cast<const float2*>(gamma + row(h, e));
        half[h][e] *= x.x, half[h][e + 1] *= x.y, half[h][e + 2] *= x.x, half[h][e + 3] *= x.y;
      }
  }
  __device__ void pack_steps(uint32_t (&a)[kSteps][4]) const {
#pragma unroll
    for (int s = 0; s < kSteps; ++s) pack_step(a[s], half[s / 4], s % 4);
  }
  // += sign a b, b [64, D] in tiles.
  template <int sign>
  __device__ void add_product(const uint32_t (&a)[4][4], const bf16* b) {
    const uint64_t tiles = tile_descriptor(b);
#pragma unroll
    for (int s = 0; s < 4; ++s)
#pragma unroll
      for (int h = 0; h < kHalves; ++h)
        wgmma<sign, true>(half[h], a[s], rows_at(tiles, s) + h * (kTile * 2 / 16));
  }
  __device__ void pin() {
#pragma unroll
    for (int h = 0; h < kHalves; ++h) sluice::pin(half[h]);
  }
};

}  // namespace sluice::cuda::kda_gpu
