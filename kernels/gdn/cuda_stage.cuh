// kernels/gdn/cuda_stage.cuh -- what both scans share: a chunk's operands as the copy engine brings
// them, and the state in the sums of one warpgroup.
//
// A CTA has kColumns columns of one value head's state [K, V]: a column depends on no other.
// Everything is computed transposed: the state's transpose lies in the f32 sums of four warps, and
// what one product sums, rounded, is the next one's operand in registers. A fifth warp fetches q,
// k, v (or dO) and what cuda_prepare.cu made, up to kStages - 1 chunks ahead.
#pragma once

#include <cuda.h>

#include "kernels/device/barrier.cuh"
#include "kernels/device/tensor_map.h"
#include "kernels/device/wgmma.cuh"
#include "kernels/gdn/cuda.cuh"

namespace sluice::cuda::gdn_gpu {

constexpr int kColumns = 64, kStages = 3, kConsumers = 128, kScanThreads = kConsumers + 32;

template <int D>
struct Stage {  // in tiles (kernels/device/wgmma.cuh), rows tokens
  bf16 q[kC * D], k[kC * D];
  bf16 A[kTile], P[kTile];
  bf16 v[kTile];  // or dO: the CTA's columns
};

// A warp's room for what it stores: [16, D] in rows, or [64, 16].
template <int D>
struct Room {
  static constexpr int kPitch = D + 8, kTokenPitch = 16 + 8;
  bf16 rows[16 * kPitch];
  bf16 tokens[kC * kTokenPitch];
};

template <int D>
struct Shared {
  Stage<D> stage[kStages];  // at multiples of 1024 bytes
  Room<D> room[kConsumers / 32];
  Factors factors[kStages];
  Barrier full[kStages], empty[kStages];
};

// Of q, k and v [N, heads * width]; rows of missing tokens are another document's or zeros, which
// factors of 0 take out.
struct Maps {
  CUtensorMap q, k, v;
};
inline CUtensorMap map_of(const Tensor& t) {
  if (t.dim(0) == 0) return {};
  Tensor rows = make_tensor(t.data, t.dtype, t.device, {t.dim(0), t.dim(1) * t.dim(2)});
  rows.stride[0] = t.stride[0];
  return tensor_map(rows, kC);
}

// Stage and parity of the i-th chunk that a CTA takes.
struct Turn {
  int stage, parity;
  __device__ explicit Turn(int i) : stage(i % kStages), parity(i / kStages % 2) {}
};

__device__ inline void fetch_box(bf16* to, const CUtensorMap& map, Barrier& done, int x, int y) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, "
      "%4}], [%2];" ::"r"(shared_address(to)),
      "l"(&map), "r"(done.address()), "r"(x), "r"(y)
      : "memory");
}

// One chunk, by one thread; `column` is v's first.
template <int D>
__device__ void fetch(Shared<D>& s, const Maps& maps, const Memory& m, ChunkAt at, int64_t unit,
                      int h, int column, Turn turn) {
  Stage<D>& to = s.stage[turn.stage];
  Barrier& full = s.full[turn.stage];
  s.empty[turn.stage].wait(turn.parity ^ 1);
  full.arrive_expecting(int(sizeof(Stage<D>) + sizeof(Factors)));
  for (int d = 0; d < D; d += 64) {
    fetch_box(to.k + d * 64, maps.k, full, h * D + d, at.n0);
    fetch_box(to.q + d * 64, maps.q, full, h * D + d, at.n0);
  }
  fetch_box(to.v, maps.v, full, column, at.n0);
  bulk_copy(&s.factors[turn.stage], m.factors + unit, sizeof(Factors), full);
  bulk_copy(to.A, m.A + unit * kTile, sizeof(to.A), full);
  bulk_copy(to.P, m.P + unit * kTile, sizeof(to.P), full);
}

// Lets the fetching warp refill a stage: each warp, once its products of it are done.
__device__ inline void release(Barrier& empty) {
  __syncwarp();
  if (threadIdx.x % 32 == 0) empty.arrive();
}

// The same in all lanes for the compiler too.
__device__ inline int warp_index() {
  return __shfl_sync(~0u, int(threadIdx.x) / 32, 0);
}

template <int D>
__device__ void init_barriers(Shared<D>& s) {
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) s.full[i].init(1), s.empty[i].init(kConsumers / 32);
    publish_barriers();
  }
  __syncthreads();
}

// The transpose of a state's columns [64, D]; element e of half h is the state's at row(h, e),
// column(e).
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
  __device__ void store(float* to, bool add) const {
#pragma unroll
    for (int h = 0; h < kHalves; ++h)
#pragma unroll
      for (int e = 0; e < 32; ++e) {
        float& x = to[row(h, e) * D + column(e)];
        x = add ? x + half[h][e] : half[h][e];
      }
  }
  __device__ void scale(float by) {
#pragma unroll
    for (int h = 0; h < kHalves; ++h)
#pragma unroll
      for (int e = 0; e < 32; ++e) half[h][e] *= by;
  }
  __device__ void pack_steps(uint32_t (&a)[kSteps][4]) const {
#pragma unroll
    for (int s = 0; s < kSteps; ++s) pack_step(a[s], half[s / 4], s % 4);
  }
  // += a b, b [64, D] in tiles.
  __device__ void add_product(const uint32_t (&a)[4][4], const bf16* b) {
    const uint64_t tiles = tile_descriptor(b);
#pragma unroll
    for (int s = 0; s < 4; ++s)
#pragma unroll
      for (int h = 0; h < kHalves; ++h)
        wgmma<1, true>(half[h], a[s], rows_at(tiles, s) + h * (kTile * 2 / 16));
  }
  __device__ void pin() {
#pragma unroll
    for (int h = 0; h < kHalves; ++h) sluice::pin(half[h]);
  }
};

// c [64, 64] = a b^T, or a b; b in tiles, [64, 16 steps] or [16 steps, 64].
template <int steps>
__device__ void product_transposed(float (&c)[32], const uint32_t (&a)[steps][4], const bf16* b,
                                   bool add = false) {
  const uint64_t tiles = tile_descriptor(b);
#pragma unroll
  for (int x = 0; x < steps; ++x) wgmma<1, false>(c, a[x], columns_at(tiles, x), add || x > 0);
}
__device__ inline void product(float (&c)[32], const uint32_t (&a)[4][4], const bf16* b) {
  const uint64_t tile = tile_descriptor(b);
#pragma unroll
  for (int x = 0; x < 4; ++x) wgmma<1, true>(c, a[x], rows_at(tile, x), x > 0);
}

// Sums [64, 64] over tokens times a factor a token; the token of c[e].
__device__ inline int token(int e) {
  return e / 4 * 8 + int(threadIdx.x) % 4 * 2 + e % 2;
}
__device__ inline void scale_tokens(float (&c)[32], const float* by) {
#pragma unroll
  for (int e = 0; e < 32; e += 4) {
    const float2 x = *reinterpret_cast<const float2*>(by + token(e));
    c[e] *= x.x, c[e + 1] *= x.y, c[e + 2] *= x.x, c[e + 3] *= x.y;
  }
}
__device__ inline void pack_tokens(uint32_t (&a)[4][4], const float (&c)[32]) {
#pragma unroll
  for (int s = 0; s < 4; ++s) pack_step(a[s], c, s);
}

// A warp's 16 columns of a tile of v, transposed, as the left operand of a product over tokens.
__device__ inline void load_columns(uint32_t (&a)[4][4], const bf16* v) {
  const int lane = int(threadIdx.x) % 32, column = int(threadIdx.x) / 32 * 16 + lane / 8 % 2 * 8;
#pragma unroll
  for (int s = 0; s < 4; ++s)
    ldmatrix_transposed(a[s], v + tile_at(16 * s + lane / 16 * 8 + lane % 8, column));
}

// Operands [16, 16 steps] of a warp to consecutive rows in global memory.
template <int D, int steps>
__device__ void store_rows(const uint32_t (&a)[steps][4], Room<D>& room, bf16* to) {
  constexpr int kPitch = Room<D>::kPitch, kPieces = steps * 2;
  const int lane = int(threadIdx.x) % 32;
  __syncwarp();
#pragma unroll
  for (int s = 0; s < steps; ++s)
    stmatrix(a[s], room.rows + lane % 16 * kPitch + s * 16 + lane / 16 * 8);
  __syncwarp();
#pragma unroll
  for (int e = lane; e < 16 * kPieces; e += 32)
    reinterpret_cast<uint4*>(to)[e] =
        *reinterpret_cast<const uint4*>(room.rows + e / kPieces * kPitch + e % kPieces * 8);
}

// Operands [16, 64] transposed: 16 columns of the first C of 64 rows, `stride` apart.
template <int D>
__device__ void store_columns(const uint32_t (&a)[4][4], Room<D>& room, bf16* to, int64_t stride,
                              int C, bool add = false) {
  constexpr int kPitch = Room<D>::kTokenPitch;
  const int lane = int(threadIdx.x) % 32;
  __syncwarp();
#pragma unroll
  for (int s = 0; s < 4; ++s)
    stmatrix_transposed(
        a[s], room.tokens + (16 * s + lane / 16 * 8 + lane % 8) * kPitch + lane / 8 % 2 * 8);
  __syncwarp();
  for (int i = lane / 2; i < C; i += 16) {
    bf16* out = to + i * stride + lane % 2 * 8;
    const bf16* in = room.tokens + i * kPitch + lane % 2 * 8;
    if (!add) {
      *reinterpret_cast<uint4*>(out) = *reinterpret_cast<const uint4*>(in);
      continue;
    }
    float x[8];
    load(x, in);
    put(out, x, true);
  }
}

}  // namespace sluice::cuda::gdn_gpu
