// kernels/kda/cuda_factors.cuh -- a chunk's q, k, g and beta as factors of what cuda_prepare.cu
// multiplies.
//
// A thread walks through two channels of a block of 16 rows, the sums of g in registers, and makes
// every factor of its elements at once, from two exponentials where the block is safe.
#pragma once

#include "kernels/device/wgmma.cuh"
#include "kernels/kda/cuda.cuh"
#include "kernels/kda/cuda_tiles.cuh"

namespace sluice::cuda::kda_gpu {

constexpr int kInverse = kC + 4;  // pitch, f32
constexpr int kBlock = 16, kBlocks = kC / kBlock;

template <int D>
constexpr int kPrepareThreads = 2 * D;  // two channels of a block of rows each

// Factors that no gate makes larger than 2 are fp16 times this: bf16 would round eight times as
// much, and what fp16 calls 0 is then below 2e-11.
constexpr int kFp16Bits = 12;
constexpr float kFp16Scale = 1 << kFp16Bits;

// Matrices are tiles (wgmma.cuh), but for those with a pitch of kInverse.
template <int D>
struct Prepare {
  union {
    struct {  // as read; then, of safe blocks, q, k and w anchored in their middle
      bf16 q[kC * D], k[kC * D], g[kC * D];
    };
    float room[kC * kInverse];  // after that
    __half inverse[kC * kC];    // at last: A
  };
  __half w_left[kC * D];  // times the decay to their block's end
  union {
    struct {  // times the decay since their block began
      __half q_begun[kC * D], k_begun[kC * D];
    };
    struct {  // after that
      float L[kC * kInverse], A[kC * kInverse];
    };
  };
  __half P[kC * kC];
  float total[kBlocks * D];  // log decay of a block
  float q_norm[kC], k_norm[kC], beta[kC];
  int unsafe[kBlocks];
};
struct Inputs {
  Rows q, k, g, beta;
  Gate gate;
  int H, HV, keeps;
};

template <int D>
__device__ void load(const Inputs& in, ChunkAt at, int h, int hv, Prepare<D>& s) {
  for (int e = threadIdx.x; e < kC * D / 8; e += kPrepareThreads<D>) {
    const int i = e / (D / 8), d = e % (D / 8) * 8, to = tile_at(i, d);
    const int64_t n = at.n0 + min(i, at.C - 1);
    copy_16_bytes(s.q + to, in.q[n] + h * D + d, i < at.C);
    copy_16_bytes(s.k + to, in.k[n] + h * D + d, i < at.C);
    copy_16_bytes(s.g + to, in.g[n] + hv * D + d, i < at.C);
  }
  if (threadIdx.x < kC) {
    const int i = threadIdx.x;
    const float logit = __bfloat162float(in.beta[at.n0 + min(i, at.C - 1)][hv]);
    s.beta[i] = i < at.C ? in.gate.beta_max * sigmoid(logit) : 0;
  }
  if (threadIdx.x < kBlocks) s.unsafe[threadIdx.x] = 0;
  wait_for_copies();
  __syncthreads();
}

// 1 / norms of the rows, the query's times K^-1/2. Several threads a row, 16 bytes at a time.
template <int D>
__device__ void norms(Prepare<D>& s) {
  constexpr int kEach = kPrepareThreads<D> / kC;  // threads a row
  const int i = threadIdx.x / kEach, part = threadIdx.x % kEach;
  float qq = 0, kk = 0;
  const auto add = [](float& sum, uint4 x) {
    for (const uint32_t pair : {x.x, x.y, x.z, x.w}) {
      const float2 v = unpack(pair);
      sum += v.x * v.x + v.y * v.y;
    }
  };
#pragma unroll
  for (int c = 0; c < 4; ++c) {  // 4 times 8 channels; rows side by side read different banks
    const int at = tile_at(i, c / 2 * (D / 2) + part * 16 + c % 2 * 8);
    add(qq, *reinterpret_cast<const uint4*>(s.q + at));
    add(kk, *reinterpret_cast<const uint4*>(s.k + at));
  }
  qq = warp_sum(qq, kEach), kk = warp_sum(kk, kEach);
  if (part != 0) return;
  s.q_norm[i] = rsqrtf(qq + kEps) * rsqrtf(float(D));
  s.k_norm[i] = rsqrtf(kk + kEps);
}

constexpr float kLog2E = 1.44269504f;

struct Pair {  // of channels
  float x, y;
  __device__ Pair operator*(Pair b) const { return {x * b.x, y * b.y}; }
  __device__ Pair operator*(float b) const { return {x * b, y * b}; }
  __device__ Pair operator-(Pair b) const { return {x - b.x, y - b.y}; }
  __device__ Pair operator+(Pair b) const { return {x + b.x, y + b.y}; }
};
__device__ inline Pair power_of_2(Pair a) {
  return {exp2_flushed(a.x), exp2_flushed(a.y)};
}
template <class T>
__device__ Pair read(const T* p) {
  const float2 v = pair_at(p);
  return {v.x, v.y};
}
template <class T>
__device__ void write(T* p, Pair a) {
  put_pair(p, a.x, a.y);
}

// Sums of g over the rows of a block, times log2 e, of the channels d, d + 1.
template <int D>
__device__ void sum_gates(const Inputs& in, ChunkAt at, int hv, const Prepare<D>& s, int I, int d,
                          Pair (&G)[kBlock]) {
  const float A = __expf(in.gate.A_log[hv]);
  const float* bias_at = in.gate.bias + hv * D + d;
  const Pair bias{bias_at[0], bias_at[1]};
  Pair sum{0, 0};
#pragma unroll
  for (int r = 0; r < kBlock; ++r) {
    const int i = I * kBlock + r;
    const Pair z = read(s.g + tile_at(i, d)) + bias;
    if (i < at.C) sum = sum + Pair{log_decay(in.gate, A, z.x), log_decay(in.gate, A, z.y)} * kLog2E;
    G[r] = sum;
  }
}

template <int D>
__device__ void make_factors(const Inputs& in, ChunkAt at, int hv, Prepare<D>& s, const Memory& m,
                             int64_t unit) {
  const int d = threadIdx.x % (D / 2) * 2, I = threadIdx.x / (D / 2);
  Pair G[kBlock];
  sum_gates(in, at, hv, s, I, d, G);
  const Pair all = G[kBlock - 1], middle = G[kBlock / 2 - 1];
  write(s.total + I * D + d, all);
  constexpr float kRange = kSafeRange * kLog2E;
  const Pair first = G[0] - middle, second = middle - all;
  if (fmaxf(fmaxf(first.x, first.y), fmaxf(second.x, second.y)) > kRange) s.unsafe[I] = 1;
  __syncthreads();
  Pair before{0, 0};
#pragma unroll
  for (int J = 0; J < kBlocks - 1; ++J)
    if (J < I) before = before + read(s.total + J * D + d);
  if (I == kBlocks - 1) write(m.gamma + unit * D + d, power_of_2(before + all));
  const bool safe = !s.unsafe[I];
  const Pair begin = power_of_2(middle) * kFp16Scale, end = power_of_2(all - middle) * kFp16Scale;
  before = power_of_2(before) * (1 / kFp16Scale);
#pragma unroll
  for (int r = 0; r < kBlock; ++r) {
    const int i = I * kBlock + r, e = tile_at(i, d);
    const Pair q = read(s.q + e) * s.q_norm[i], k = read(s.k + e) * s.k_norm[i];
    const Pair w = k * s.beta[i];
    Pair begun, left;
    if (safe) {
      const Pair x = power_of_2(G[r] - middle), y = power_of_2(middle - G[r]);
      write(s.q + e, q * x), write(s.k + e, k * x), write(s.g + e, w * y);
      begun = x * begin, left = y * end;
    } else {
      begun = power_of_2(G[r]) * kFp16Scale, left = power_of_2(all - G[r]) * kFp16Scale;
    }
    write(s.q_begun + e, q * begun), write(s.k_begun + e, k * begun), write(s.w_left + e, w * left);
    const int64_t out = unit * kC * D + e;
    write(m.q_plus + out, q * begun * before), write(m.k_plus + out, k * begun * before);
  }
  __syncthreads();
}

}  // namespace sluice::cuda::kda_gpu
