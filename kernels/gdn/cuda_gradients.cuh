// kernels/gdn/cuda_gradients.cuh -- the products of cuda_gradients.cu: a, r and c of one chunk and
// value head.
#pragma once

#include "kernels/gdn/cuda.cuh"

namespace sluice::cuda::gdn_gpu {

constexpr int kGradientThreads = 512;

struct Gradients {
  Rows q, k, g, beta, d_o;
  Rows dq, dk, dg, dbeta;
  int add_dq, add_dk, add_dg, add_dbeta;
  Gate gate;
  int H, HV;
};

template <int D>
struct Shared {
  static constexpr int kPitch = D + 8;
  struct {
    bf16 S[D * kPitch], D_state[D * kPitch];      // [values, channels]
    bf16 X[D * kScorePitch], E[D * kScorePitch];  // [values, tokens]
    bf16 d_o[kC * kPitch];
  } in;
  bf16 q[kC * kPitch], k[kC * kPitch];
  struct {  // pairs, N * R and M * R: times w_j, and times the norms of row i
    bf16 N_w[kC * kScorePitch], M_w[kC * kScorePitch];
    bf16 N_q[kC * kScorePitch], M_k[kC * kScorePitch];
  } pair;
  float decay[kC * kDecayPitch];  // R, then Z
  Tokens tokens;
  // By quarter of the channels and token: terms of dg that end and begin at it; q . dq, k . dk and
  // k . c.
  float right[4 * kC], left[4 * kC], qa[4 * kC], kt[4 * kC], kc[4 * kC];
  float crossing[16 * kC];  // by 4 rows: pairs that decay over the token
  float states[16];         // by warp: part of <S, D>
};

// Rows of 16 and quarter of the columns that a warp has.
__device__ inline int block() {
  return int(threadIdx.x) / 32 % 4;
}
__device__ inline int part() {
  return int(threadIdx.x) / 128;
}

template <int D>
struct Sums {
  static constexpr int kTiles = D / 32;
  float a[kTiles][4], r[kTiles][4], c[kTiles][4];
  __device__ static int channel(int tile) { return part() * (D / 4) + tile * 8 + tile_column(0); }
};
struct Pairs {  // dO E^T, X E^T, q k^T, k k^T
  float n[2][4], m[2][4], p[2][4], l[2][4];
};

template <int rows, int width>
__device__ void copy_matrix(bf16* to, const bf16* from) {
  for (int e = int(threadIdx.x); e < rows * width / 8; e += kGradientThreads)
    copy_16_bytes(to + e / (width / 8) * (width + 8) + e % (width / 8) * 8, from + e * 8);
}
template <int D>
__device__ void load_states(const Gradients& t, const Memory& m, const BackwardMemory& b,
                            ChunkAt at, int64_t unit, int hv, Shared<D>& s) {
  copy_matrix<D, D>(s.in.S, m.S + unit * D * D);
  copy_matrix<D, D>(s.in.D_state, b.D + unit * D * D);
  copy_matrix<D, kC>(s.in.X, b.X + unit * D * kC);
  copy_matrix<D, kC>(s.in.E, m.E + unit * D * kC);
  for (int e = int(threadIdx.x); e < kC * D / 8; e += kGradientThreads) {
    const int i = e / (D / 8), c = e % (D / 8) * 8;
    copy_16_bytes(s.in.d_o + i * Shared<D>::kPitch + c,
                  t.d_o[at.n0 + min(i, at.C - 1)] + hv * D + c, i < at.C);
  }
}

// a = dO S^T, r = X S^T, c = E D^T; the pairs' products; the warp's part of <S, D>.
template <int D>
__device__ void through_states(Sums<D>& sum, Pairs& pairs, Shared<D>& s) {
  constexpr int kPitch = Shared<D>::kPitch;
  const int row = block() * 16, column = part() * (D / 4);
  const bool below = part() <= block();
#pragma unroll 2
  for (int v = 0; v < D; v += 16) {
    uint32_t o[4], x[4], e[4], b[4];
    load_a(o, s.in.d_o + row * kPitch + v, kPitch);
    load_a_transposed(x, s.in.X + v * kScorePitch + row, kScorePitch);
    load_a_transposed(e, s.in.E + v * kScorePitch + row, kScorePitch);
#pragma unroll
    for (int j = 0; j < Sums<D>::kTiles; j += 2) {
      load_b(b, s.in.S + v * kPitch + column + j * 8, kPitch);
      mma(sum.a[j], o, b[0], b[1]), mma(sum.a[j + 1], o, b[2], b[3]);
      mma(sum.r[j], x, b[0], b[1]), mma(sum.r[j + 1], x, b[2], b[3]);
      load_b(b, s.in.D_state + v * kPitch + column + j * 8, kPitch);
      mma(sum.c[j], e, b[0], b[1]), mma(sum.c[j + 1], e, b[2], b[3]);
    }
    if (!below) continue;
    load_b(b, s.in.E + v * kScorePitch + part() * 16, kScorePitch);
    mma(pairs.n[0], o, b[0], b[1]), mma(pairs.n[1], o, b[2], b[3]);
    mma(pairs.m[0], x, b[0], b[1]), mma(pairs.m[1], x, b[2], b[3]);
  }
#pragma unroll 2
  for (int d = 0; below && d < D; d += 16) {
    uint32_t q[4], k[4], b[4];
    load_a(q, s.q + row * kPitch + d, kPitch);
    load_a(k, s.k + row * kPitch + d, kPitch);
    load_b_transposed(b, s.k + part() * 16 * kPitch + d, kPitch);
    mma(pairs.p[0], q, b[0], b[1]), mma(pairs.p[1], q, b[2], b[3]);
    mma(pairs.l[0], k, b[0], b[1]), mma(pairs.l[1], k, b[2], b[3]);
  }
  float dot = 0;
  for (int e = int(threadIdx.x); e < D * D / 8; e += kGradientThreads) {
    float x[8], y[8];
    const int at = e / (D / 8) * kPitch + e % (D / 8) * 8;
    load(x, s.in.S + at);
    load(y, s.in.D_state + at);
#pragma unroll
    for (int i = 0; i < 8; ++i) dot += x[i] * y[i];
  }
  dot = warp_sum(dot);
  if (threadIdx.x % 32 == 0) s.states[threadIdx.x / 32] = dot;
}

// N and M with the decay, as operands of what follows, and Z.
template <int D>
__device__ void store_pairs(const Pairs& pairs, Shared<D>& s, bool delta_rule) {
  if (part() > block()) return;
  const Tokens& t = s.tokens;
#pragma unroll
  for (int tile = 0; tile < 2; ++tile)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int i = block() * 16 + tile_row(2 * half), j0 = part() * 16 + tile * 8 + tile_column(0);
      const float qi = t.q_norm[i], ki = t.k_norm[i];
      float n[2], m[2], w[2], z[2];
      for (int x = 0; x < 2; ++x) {
        const int e = 2 * half + x, j = j0 + x;
        const float r = s.decay[i * kDecayPitch + j];  // 0 above the diagonal
        n[x] = pairs.n[tile][e] * r;
        m[x] = delta_rule && j < i ? -pairs.m[tile][e] * r : 0;
        w[x] = t.k_norm[j] * t.b[j];
        z[x] = j < i ? (n[x] * pairs.p[tile][e] * qi + m[x] * pairs.l[tile][e] * ki) * w[x] : 0;
      }
      const int at = i * kScorePitch + j0;
      store_pair(s.pair.N_w + at, n[0] * w[0], n[1] * w[1]);
      store_pair(s.pair.M_w + at, m[0] * w[0], m[1] * w[1]);
      store_pair(s.pair.N_q + at, n[0] * qi, n[1] * qi);
      store_pair(s.pair.M_k + at, m[0] * ki, m[1] * ki);
      s.decay[i * kDecayPitch + j0] = z[0], s.decay[i * kDecayPitch + j0 + 1] = z[1];
    }
}

// Pairs j < m <= i decay over token m: sums along the rows, a lane two tokens m, then of the warp's
// four rows.
template <int D>
__device__ void crossing_pairs(Shared<D>& s) {
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32, m = 2 * lane;
  float sum[2] = {};
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    const int i = warp * 4 + r;
    float2 z{0, 0};
    if (m <= i) z = {s.decay[i * kDecayPitch + m], s.decay[i * kDecayPitch + m + 1]};
    float before = z.x + z.y;
    for (int step = 1; step < 32; step *= 2) {
      const float x = __shfl_up_sync(~0u, before, step);
      if (lane >= step) before += x;
    }
    before = __shfl_up_sync(~0u, before, 1);
    if (lane == 0) before = 0;
    if (m <= i) sum[0] += before;
    if (m + 1 <= i) sum[1] += before + z.x;
  }
  s.crossing[warp * kC + m] = sum[0], s.crossing[warp * kC + m + 1] = sum[1];
}

// a += (N R) W, r += (M R) W, c += (N R)^T Q + (M R)^T K.
template <int D>
__device__ void through_pairs(Sums<D>& sum, const Shared<D>& s) {
  constexpr int kPitch = Shared<D>::kPitch;
  const int column = part() * (D / 4), mine = block();
#pragma unroll 1
  for (int other = 0; other <= mine; ++other) {
    uint32_t n[4], m[4], b[4];
    load_a(n, s.pair.N_w + mine * 16 * kScorePitch + other * 16, kScorePitch);
    load_a(m, s.pair.M_w + mine * 16 * kScorePitch + other * 16, kScorePitch);
#pragma unroll
    for (int j = 0; j < Sums<D>::kTiles; j += 2) {
      load_b(b, s.k + other * 16 * kPitch + column + j * 8, kPitch);
      mma(sum.a[j], n, b[0], b[1]), mma(sum.a[j + 1], n, b[2], b[3]);
      mma(sum.r[j], m, b[0], b[1]), mma(sum.r[j + 1], m, b[2], b[3]);
    }
  }
#pragma unroll 1
  for (int other = mine; other < 4; ++other) {
    uint32_t n[4], m[4], b[4];
    load_a_transposed(n, s.pair.N_q + other * 16 * kScorePitch + mine * 16, kScorePitch);
    load_a_transposed(m, s.pair.M_k + other * 16 * kScorePitch + mine * 16, kScorePitch);
#pragma unroll
    for (int j = 0; j < Sums<D>::kTiles; j += 2) {
      load_b(b, s.q + other * 16 * kPitch + column + j * 8, kPitch);
      mma(sum.c[j], n, b[0], b[1]), mma(sum.c[j + 1], n, b[2], b[3]);
      load_b(b, s.k + other * 16 * kPitch + column + j * 8, kPitch);
      mma(sum.c[j], m, b[0], b[1]), mma(sum.c[j + 1], m, b[2], b[3]);
    }
  }
}

}  // namespace sluice::cuda::gdn_gpu
