// kernels/gdn/cuda.cuh -- what the CUDA kernels share: memory between them, gates and decays.
#pragma once

#include "kernels/base/cuda_check.h"
#include "kernels/chunks/cuda_table.h"
#include "kernels/device/mma.cuh"
#include "kernels/device/reduce.cuh"
#include "kernels/device/vec.cuh"
#include "kernels/gdn/saved.h"

namespace sluice::cuda::gdn_gpu {

using chunks::ChunkAt;
using chunks::Pieces;

constexpr int kC = int(kGdnChunk), kScorePitch = kC + 8;  // bf16; pads against bank conflicts
constexpr float kEps = float(kGdnNormEps);

// e^-128 is 0 in f32, and so is every product with it: log decays below it are set to it, which
// changes nothing and keeps sums finite.
constexpr float kForgotten = -128;

// What the rows of a chunk are multiplied by where they meet the state.
struct Factors {
  float q[kC], k[kC], w[kC];  // K^-1/2 / |q| e^G; e^G / |k|, 0 without the delta rule;
                              // b / |k| e^{G_C - G}
  float gamma, pad[3];        // e^{G_C}
};

// Workspace of forward; backward reads it again, E and S are there for it alone. By chunk and value
// head. Of a chunk's missing tokens rows of P are zero, those of A the identity's and those of E
// are finite: nothing that is kept has them.
struct Memory {
  Memory(void* memory, const gdn::Sizes& s, bool keeps) {
    const int64_t units = s.chunks() * s.HV, kept = keeps ? units : 0;
    Pieces from{static_cast<char*>(memory)};
    from.take(A, units * kC * kC), from.take(P, units * kC * kC);
    from.take(E, kept * s.V * kC), from.take(S, kept * s.V * s.K);
    from.take(factors, units), from.take(chunk, s.chunks()), from.take(first, s.documents + 1);
    bytes = from.p - static_cast<char*>(memory);
  }
  bf16 *A, *P;       // [64, 64] (I + L)^-1 and P, a tile (kernels/device/wgmma.cuh)
  bf16* E;           // [V, 64]
  bf16* S;           // [V, K] the state that enters
  Factors* factors;  // one
  ChunkAt* chunk;    // [chunks]
  int* first;        // [documents + 1]
  int64_t bytes;
};

// Scratch of backward, by chunk and value head.
struct BackwardMemory {
  BackwardMemory(void* memory, const gdn::Sizes& s) {
    const int64_t units = s.chunks() * s.HV;
    Pieces from{static_cast<char*>(memory)};
    from.take(D, units * s.V * s.K), from.take(X, units * s.V * kC), from.take(parts, units * 2);
    bytes = from.p - static_cast<char*>(memory);
  }
  bf16* D;       // [V, K] dL/dS' of the state that leaves
  bf16* X;       // [V, 64] dL/dV
  float* parts;  // [2] sums of ddt_bias and dA_log
  int64_t bytes;
};

struct Gate {
  const float *A_log, *bias;  // [HV]
  float beta_max;
  int delta_rule;
};
template <class Args>
Gate gate_of(const Args& a) {
  return {a.A_log.template as<float>(), a.dt_bias.template as<float>(), float(a.params.beta_max),
          a.params.delta_rule};
}
// beta's rows; there is none without the delta rule.
template <class Args>
Rows beta_of(const Args& a) {
  return a.params.delta_rule ? rows_of(a.beta) : Rows{};
}

// The tokens of a chunk in shared memory, of one value head; zeros beyond C.
struct Tokens {
  float q_norm[kC], k_norm[kC];  // 1 / |x|, the query's times K^-1/2
  float y[kC], g[kC], b[kC];     // gate logit with its bias; log decay; write strength
  float since[kC], rest[kC];     // sums of g over the 16 tokens that i is of: up to i; after i
  float total[4];                // over each 16 tokens
  // over the blocks from <= I < to
  __device__ float between(int from, int to) const {
    float sum = 0;
    for (int I = from; I < to; ++I) sum += total[I];
    return sum;
  }
  __device__ float from_start(int i) const { return __expf(between(0, i / 16) + since[i]); }
  __device__ float to_end(int i) const { return __expf(rest[i] + between(i / 16 + 1, 4)); }
};

// Gates and their sums, by the first 64 threads. Sums are of g over their own tokens, never
// differences.
__device__ inline void load_gates(Rows g, Rows beta, const Gate& gate, ChunkAt at, int hv,
                                  Tokens& t) {
  if (threadIdx.x >= kC) return;
  const int i = int(threadIdx.x);
  const int64_t n = at.n0 + min(i, at.C - 1);
  const bool there = i < at.C;
  const float y = __bfloat162float(g[n][hv]) + gate.bias[hv], step = softplus(y);
  const float decay = there ? fmaxf(-__expf(gate.A_log[hv]) * step, kForgotten) : 0;
  float b = step;
  if (gate.delta_rule) b = gate.beta_max * sigmoid(__bfloat162float(beta[n][hv]));
  t.y[i] = y, t.g[i] = decay, t.b[i] = there ? b : 0;
  float up = decay, down = __shfl_down_sync(~0u, decay, 1, 16);
  if (i % 16 == 15) down = 0;
  for (int step = 1; step < 16; step *= 2) {
    const float before = __shfl_up_sync(~0u, up, step, 16);
    const float after = __shfl_down_sync(~0u, down, step, 16);
    if (i % 16 >= step) up += before;
    if (i % 16 + step < 16) down += after;
  }
  t.since[i] = up, t.rest[i] = down;
  if (i % 16 == 15) t.total[i / 16] = up;
}

// Norms of the rows of q and k [64, D] in shared memory, threads / 64 lanes a row.
template <int D, int threads>
__device__ void make_norms(const bf16* q, const bf16* k, int pitch, ChunkAt at, Tokens& t) {
  constexpr int kLanes = threads / kC;
  const int i = int(threadIdx.x) / kLanes, lane = int(threadIdx.x) % kLanes;
  float qq = 0, kk = 0;
#pragma unroll
  for (int d = lane * 8; d < D; d += kLanes * 8) {
    float x[8], y[8];
    load(x, q + i * pitch + d);
    load(y, k + i * pitch + d);
#pragma unroll
    for (int e = 0; e < 8; ++e) qq += x[e] * x[e], kk += y[e] * y[e];
  }
  qq = warp_sum(qq, kLanes), kk = warp_sum(kk, kLanes);
  if (lane != 0) return;
  t.q_norm[i] = i < at.C ? rsqrtf(qq + kEps) * rsqrtf(float(D)) : 0;
  t.k_norm[i] = i < at.C ? rsqrtf(kk + kEps) : 0;
}

// decay [64, 64] = e^{G_i - G_j} where i's block of 16 is not before j's, 0 above the diagonal.
constexpr int kDecayPitch = kC + 1;  // f32
__device__ inline void make_decay(const Tokens& t, float* decay) {
  if (threadIdx.x >= 4 * kC) return;
  const int j = int(threadIdx.x) % kC, I = int(threadIdx.x) / kC, J = j / 16;
  if (I < J) return;
  float sum = I == J ? 0 : t.rest[j] + t.between(J + 1, I);
#pragma unroll
  for (int i = I * 16; i < I * 16 + 16; ++i) {
    if (i > j) sum += t.g[i];
    decay[i * kDecayPitch + j] = i >= j ? __expf(sum) : 0;
  }
}

// Rows of [N, H, D] in a chunk, 16 bytes at a time, to shared memory; beyond C the last one again.
template <int D, int threads>
__device__ void copy_rows(bf16* to, int pitch, Rows from, ChunkAt at, int64_t column) {
  for (int e = int(threadIdx.x); e < kC * D / 8; e += threads) {
    const int i = e / (D / 8), c = e % (D / 8) * 8;
    copy_16_bytes(to + i * pitch + c, from[at.n0 + min(i, at.C - 1)] + column + c);
  }
}

// Element e of a lane's part of a tile [16, 8] lies at tile_row(e), tile_column(e).
__device__ inline int tile_row(int e) {
  return int(threadIdx.x) % 32 / 4 + e / 2 * 8;
}
__device__ inline int tile_column(int e) {
  return int(threadIdx.x) % 4 * 2 + e % 2;
}
__device__ inline void store_pair(bf16* to, float low, float high) {
  *reinterpret_cast<uint32_t*>(to) = pack(low, high);
}
__device__ inline float2 load_pair(const bf16* from) {
  return unpack(*reinterpret_cast<const uint32_t*>(from));
}

template <class Kernel>
void allow_shared(Kernel kernel, size_t bytes) {
  SLUICE_CUDA(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes)));
}

}  // namespace sluice::cuda::gdn_gpu
