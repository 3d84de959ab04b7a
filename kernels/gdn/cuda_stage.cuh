// kernels/gdn/cuda_stage.cuh -- what both scans share: a chunk's operands, and products of a state
// that is held transposed, [16 values, D channels] a warp, in registers.
//
// A column of the state depends on no other, and a tile [16, 8] of sums has the registers of half a
// tile [16, 16] of the left operand: so what one product leaves is the next one's operand as it is.
// Two warps share 16 columns: one takes the state along, which is what a scan's time is, the other
// does what the state does not wait for. They hand over through shared memory and meet at barriers
// of their own.
#pragma once

#include "kernels/gdn/cuda.cuh"

namespace sluice::cuda::gdn_gpu {

constexpr int kPairs = 2, kThreads = kPairs * 64, kVTile = kPairs * 16, kVPitch = kVTile + 8;

template <int D>
struct Stage {
  static constexpr int kPitch = D + 8;
  bf16 q[kC * kPitch], k[kC * kPitch];
  bf16 A[kC * kScorePitch], P[kC * kScorePitch];
  bf16 v[kC * kVPitch];  // or dO; a warp's columns become O or dV
  Factors factors;
};

struct Inputs {
  Rows q, k, v;  // v: or dO
  int H, HV;
};

// Starts copies. `column` of v is the tile's first.
template <int D>
__device__ void load_stage(Stage<D>& to, const Memory& m, const Inputs& in, ChunkAt at,
                           int64_t unit, int h, int column) {
  copy_rows<D, kThreads>(to.q, Stage<D>::kPitch, in.q, at, h * D);
  copy_rows<D, kThreads>(to.k, Stage<D>::kPitch, in.k, at, h * D);
  for (int e = int(threadIdx.x); e < kC * kC / 8; e += kThreads) {
    const int i = e / (kC / 8), c = e % (kC / 8) * 8;
    if (c > (i | 15)) continue;
    copy_16_bytes(to.A + i * kScorePitch + c, m.A + (unit * kC + i) * kC + c);
    copy_16_bytes(to.P + i * kScorePitch + c, m.P + (unit * kC + i) * kC + c);
  }
  for (int e = int(threadIdx.x); e < kC * kVTile / 8; e += kThreads) {
    const int i = e / (kVTile / 8), c = e % (kVTile / 8) * 8;
    copy_16_bytes(to.v + i * kVPitch + c, in.v[at.n0 + min(i, at.C - 1)] + column + c, i < at.C);
  }
  const auto* from = reinterpret_cast<const bf16*>(m.factors + unit);
  auto* factors = reinterpret_cast<bf16*>(&to.factors);
  for (int e = int(threadIdx.x); e < int(sizeof(Factors)) / 16; e += kThreads)
    copy_16_bytes(factors + e * 8, from + e * 8);
}

template <int tiles>
using Sum = float[tiles][4];  // [16, 8 tiles]
template <int steps>
using Operand = uint32_t[steps][4];  // [16, 16 steps]

template <int steps>
__device__ void as_operand(Operand<steps>& a, const Sum<2 * steps>& c) {
#pragma unroll
  for (int k = 0; k < steps; ++k) {
    a[k][0] = pack(c[2 * k][0], c[2 * k][1]), a[k][1] = pack(c[2 * k][2], c[2 * k][3]);
    a[k][2] = pack(c[2 * k + 1][0], c[2 * k + 1][1]);
    a[k][3] = pack(c[2 * k + 1][2], c[2 * k + 1][3]);
  }
}

// c [16, 64] += a [16, D] b^T, b [64, D].
template <int steps>
__device__ void add_read(Sum<8>& c, const Operand<steps>& a, const bf16* b, int pitch) {
#pragma unroll
  for (int k = 0; k < steps; ++k)
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      uint32_t x[4];
      load_b_transposed(x, b + n * 16 * pitch + k * 16, pitch);
      mma(c[2 * n], a[k], x[0], x[1]);
      mma(c[2 * n + 1], a[k], x[2], x[3]);
    }
}
// c [16, D] += a [16, 64] b, b [64, D].
template <int tiles>
__device__ void add_write(Sum<tiles>& c, const Operand<4>& a, const bf16* b, int pitch) {
#pragma unroll
  for (int k = 0; k < 4; ++k)
#pragma unroll
    for (int n = 0; n < tiles / 2; ++n) {
      uint32_t x[4];
      load_b(x, b + k * 16 * pitch + n * 16, pitch);
      mma(c[2 * n], a[k], x[0], x[1]);
      mma(c[2 * n + 1], a[k], x[2], x[3]);
    }
}
// c [16, 64] += a b^T, or a b, b [64, 64] lower triangular.
__device__ inline void add_lower_transposed(Sum<8>& c, const Operand<4>& a, const bf16* b) {
#pragma unroll
  for (int k = 0; k < 4; ++k)
#pragma unroll
    for (int n = k; n < 4; ++n) {
      uint32_t x[4];
      load_b_transposed(x, b + n * 16 * kScorePitch + k * 16, kScorePitch);
      mma(c[2 * n], a[k], x[0], x[1]);
      mma(c[2 * n + 1], a[k], x[2], x[3]);
    }
}
__device__ inline void add_lower(Sum<8>& c, const Operand<4>& a, const bf16* b) {
#pragma unroll
  for (int k = 0; k < 4; ++k)
#pragma unroll
    for (int n = 0; n <= k; ++n) {
      uint32_t x[4];
      load_b(x, b + k * 16 * kScorePitch + n * 16, kScorePitch);
      mma(c[2 * n], a[k], x[0], x[1]);
      mma(c[2 * n + 1], a[k], x[2], x[3]);
    }
}

// c [16, 64] times a factor a column.
__device__ inline void scale_columns(Sum<8>& c, const float* by) {
#pragma unroll
  for (int n = 0; n < 8; ++n) {
    const float2 x = *reinterpret_cast<const float2*>(by + n * 8 + tile_column(0));
    c[n][0] *= x.x, c[n][1] *= x.y, c[n][2] *= x.x, c[n][3] *= x.y;
  }
}

__device__ inline bool takes_state() {
  return threadIdx.x < kThreads / 2;
}
__device__ inline int pair() {
  return int(threadIdx.x) / 32 % kPairs;
}
// Barriers of a pair, `which` of two: one warp says that it has written, the other waits for it.
__device__ inline void tell(int which) {
  asm volatile("bar.arrive %0, 64;" ::"r"(1 + which * kPairs + pair()) : "memory");
}
__device__ inline void wait_for(int which) {
  asm volatile("bar.sync %0, 64;" ::"r"(1 + which * kPairs + pair()) : "memory");
}

// This pair's columns of v [64, kVTile], transposed, and back into the same place.
__device__ inline int warp_column() {
  return pair() * 16;
}
__device__ inline void load_columns(Operand<4>& a, const bf16* v) {
#pragma unroll
  for (int n = 0; n < 4; ++n)
    load_a_transposed(a[n], v + n * 16 * kVPitch + warp_column(), kVPitch);
}
__device__ inline void store_columns(const Operand<4>& a, bf16* v) {
  const int l = int(threadIdx.x) % 32;
  __syncwarp();
#pragma unroll
  for (int n = 0; n < 4; ++n)
    stmatrix_transposed(
        a[n], v + (n * 16 + l % 8 + l / 16 * 8) * kVPitch + warp_column() + l / 8 % 2 * 8);
  __syncwarp();
}

// An operand to and from shared memory, [16, width] in rows; from there to global memory.
template <int width>
constexpr int kRowPitch = width + 8;
template <int steps>
__device__ void put_rows(bf16* to, const Operand<steps>& a) {
  constexpr int kPitch = kRowPitch<steps * 16>;
  const int l = int(threadIdx.x) % 32;
#pragma unroll
  for (int k = 0; k < steps; ++k) stmatrix(a[k], to + l % 16 * kPitch + k * 16 + l / 16 * 8);
}
template <int steps>
__device__ void get_rows(Operand<steps>& a, const bf16* from) {
  constexpr int kPitch = kRowPitch<steps * 16>;
#pragma unroll
  for (int k = 0; k < steps; ++k) load_a(a[k], from + k * 16, kPitch);
}
template <int width>
__device__ void store_rows(bf16* to, const bf16* from) {
#pragma unroll
  for (int e = int(threadIdx.x) % 32; e < 16 * width / 8; e += 32)
    reinterpret_cast<uint4*>(to)[e] = *reinterpret_cast<const uint4*>(
        from + e / (width / 8) * kRowPitch<width> + e % (width / 8) * 8);
}

// The state [16 values, D channels] from and to [D, D] f32 in global memory, rows channels.
template <int D>
__device__ void load_state(Sum<D / 8>& s, const float* from) {
#pragma unroll
  for (int n = 0; n < D / 8; ++n)
#pragma unroll
    for (int e = 0; e < 4; ++e)
      s[n][e] = from ? from[(n * 8 + tile_column(e)) * D + tile_row(e)] : 0;
}
template <int D>
__device__ void store_state(const Sum<D / 8>& s, float* to, bool add) {
#pragma unroll
  for (int n = 0; n < D / 8; ++n)
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      float& x = to[(n * 8 + tile_column(e)) * D + tile_row(e)];
      x = add ? x + s[n][e] : s[n][e];
    }
}

}  // namespace sluice::cuda::gdn_gpu
