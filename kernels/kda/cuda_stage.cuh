// kernels/kda/cuda_stage.cuh -- what both scans share: a chunk's operands, and a state [K, kVTile]
// in the accumulators of eight warps.
#pragma once

#include "kernels/device/wgmma.cuh"
#include "kernels/kda/cuda.cuh"

namespace sluice::cuda::kda_gpu {

template <int D>
struct Stage {
  static constexpr int kPitch = D + 8;
  bf16 k_plus[kC * kPitch], q_plus[kC * kPitch], k_minus[kC * kPitch];
  bf16 A[kC * kScorePitch], P[kC * kScorePitch];
  bf16 v[kC * kVPitch];  // or dO
};

// [64, width] in tiles.
template <int width>
__device__ void load_rows(bf16* to, int pitch, const bf16* from) {
  for (int e = threadIdx.x; e < kC * width / 8; e += kThreads) {
    const int i = e / (width / 8), column = e % (width / 8) * 8;
    copy_16_bytes(to + i * pitch + column, from + tile_at(i, column));
  }
}

// Starts copies; `column` of v is the tile's first.
template <int D>
__device__ void load_stage(Stage<D>& to, const Memory& m, Rows v, ChunkAt at, int64_t unit,
                           int column) {
  load_rows<D>(to.k_plus, Stage<D>::kPitch, m.k_plus + unit * kC * D);
  load_rows<D>(to.q_plus, Stage<D>::kPitch, m.q_plus + unit * kC * D);
  load_rows<D>(to.k_minus, Stage<D>::kPitch, m.k_minus + unit * kC * D);
  load_rows<kC>(to.A, kScorePitch, m.A + unit * kC * kC);
  load_rows<kC>(to.P, kScorePitch, m.P + unit * kC * kC);
  static_assert(kC * kVTile / 8 == kThreads);
  const int i = threadIdx.x / (kVTile / 8), c = threadIdx.x % (kVTile / 8) * 8;
  copy_16_bytes(to.v + i * kVPitch + c, v[at.n0 + min(i, at.C - 1)] + column + c, i < at.C);
}

// c [16, 8 * tiles] += a [16, K] b [K, ..], b's rows kVPitch apart, from its column n on.
template <int K, int tiles>
__device__ void product(float (&c)[tiles][4], const bf16* a, int a_pitch, const bf16* b, int n) {
#pragma unroll
  for (int k = 0; k < K; k += 16) {
    uint32_t x[4], y[4];
    load_a(x, a + k, a_pitch);
#pragma unroll
    for (int j = 0; j < tiles; j += 2) {
      load_b(y, b + k * kVPitch + n + j * 8, kVPitch);
      mma(c[j], x, y[0], y[1]);
      mma(c[j + 1], x, y[2], y[3]);
    }
  }
}
// The same with a stored [K, 16]; c may have room for more tiles.
template <int K, int tiles>
__device__ void product_transposed(float (*c)[4], const bf16* a, int a_pitch, const bf16* b,
                                   int n) {
#pragma unroll
  for (int k = 0; k < K; k += 16) {
    uint32_t x[4], y[4];
    load_a_transposed(x, a + k * a_pitch, a_pitch);
#pragma unroll
    for (int j = 0; j < tiles; j += 2) {
      load_b(y, b + k * kVPitch + n + j * 8, kVPitch);
      mma(c[j], x, y[0], y[1]);
      mma(c[j + 1], x, y[2], y[3]);
    }
  }
}

// A warp's part of a state [D, kVTile]: 16 rows, kTiles tiles of 8 columns.
template <int D>
struct Warp {
  static constexpr int kTiles = D / 32;  // D = 64: two warps have the same rows
  using State = float[4][4];

  __device__ static int row(int half) { return int(threadIdx.x) % 32 / 4 + half * 8; }
  __device__ static int column() { return int(threadIdx.x) % 4 * 2; }
  __device__ static int state_row() { return int(threadIdx.x) / 32 % (D / 16) * 16; }
  __device__ static int state_column() { return int(threadIdx.x) / 32 / (D / 16) * kTiles * 8; }

  template <class Body>
  __device__ static void each(const Body& body) {  // body(tile, half, row, column)
#pragma unroll
    for (int j = 0; j < kTiles; ++j)
#pragma unroll
      for (int half = 0; half < 2; ++half)
        body(j, half, state_row() + row(half), state_column() + j * 8 + column());
  }
  __device__ static void load(State& s, const float* from) {  // rows D apart
    each([&](int j, int half, int r, int c) {
      s[j][2 * half] = from ? from[r * D + c] : 0;
      s[j][2 * half + 1] = from ? from[r * D + c + 1] : 0;
    });
  }
  __device__ static void store(const State& s, float* to, bool add) {
    each([&](int j, int half, int r, int c) {
      for (int e = 0; e < 2; ++e) {
        float& x = to[r * D + c + e];
        x = add ? x + s[j][2 * half + e] : s[j][2 * half + e];
      }
    });
  }
  __device__ static void store_rounded(const State& s, bf16* to, int pitch) {
    each([&](int j, int half, int r, int c) {
      *reinterpret_cast<uint32_t*>(to + r * pitch + c) = pack(s[j][2 * half], s[j][2 * half + 1]);
    });
  }
  __device__ static void decay(State& s, const float* gamma) {
    each([&](int j, int half, int r, int) {
      s[j][2 * half] *= gamma[r];
      s[j][2 * half + 1] *= gamma[r];
    });
  }
};

}  // namespace sluice::cuda::kda_gpu
