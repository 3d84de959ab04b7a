// kernels/kda/cuda.cuh -- what the CUDA kernels share: memory between them, the gate, rows.
#pragma once

#include <cmath>

#include "kernels/base/cuda_check.h"
#include "kernels/device/mma.cuh"
#include "kernels/device/reduce.cuh"
#include "kernels/kda/saved.h"

namespace sluice::cuda::kda_gpu {

constexpr int kC = int(kKdaChunk), kThreads = 256, kVTile = 32;
constexpr int kScorePitch = kC + 8, kVPitch = kVTile + 8;  // bf16; pads against bank conflicts
constexpr float kEps = float(kKdaNormEps);

// e^-128 is 0 in f32, and so is every product with it: log decays below it are set to it, which
// changes nothing, keeps sums finite and their rounding errors small.
constexpr float kForgotten = -128;

// Tokens n0 .. n0 + C of document doc; C is 0 beyond the last chunk.
struct ChunkAt {
  int n0, C;
};

// Workspace of forward; backward reads it again, E and S are there for it alone. By chunk and value
// head, rows of a chunk's missing tokens are zero. Chunks are numbered document by document.
struct Memory {
  Memory(void* memory, const kda::Sizes& s, bool keeps) {
    const int64_t units = s.chunks() * s.HV, kept = keeps ? units : 0;
    char* p = static_cast<char*>(memory);
    const auto take = [&p](auto*& to, int64_t count) {
      to = reinterpret_cast<std::remove_reference_t<decltype(to)>>(p);
      p += (count * int64_t(sizeof(*to)) + 255) / 256 * 256;
    };
    take(q_plus, units * kC * s.K), take(k_plus, units * kC * s.K), take(k_minus, units * kC * s.K);
    take(A, units * kC * kC), take(P, units * kC * kC);
    take(E, kept * kC * s.V), take(S, kept * s.K * s.V);
    take(gamma, units * s.K), take(chunk, s.chunks()), take(first, s.documents + 1);
    bytes = p - static_cast<char*>(memory);
  }
  bf16 *q_plus, *k_plus, *k_minus;  // [64, K] q e^G, k e^G, w e^{G_C - G}
  bf16 *A, *P;                      // [64, 64] (I + L)^-1 and P
  bf16* E;                          // [64, V]
  bf16* S;                          // [K, V] the state that enters
  float* gamma;                     // [K] e^{G_C}
  ChunkAt* chunk;                   // [chunks]
  int* first;                       // [documents + 1] number of a document's first chunk
  int64_t bytes;
};

template <int D>
constexpr int kParts = D + 4;  // sums of a chunk: ddt_bias, then dA_log; the rest pads

// Scratch of backward, by chunk and value head.
struct BackwardMemory {
  BackwardMemory(void* memory, const kda::Sizes& s, bool adds_dv) {
    const int64_t units = s.chunks() * s.HV;
    char* p = static_cast<char*>(memory);
    const auto take = [&p](auto*& to, int64_t count) {
      to = reinterpret_cast<std::remove_reference_t<decltype(to)>>(p);
      p += (count * int64_t(sizeof(*to)) + 255) / 256 * 256;
    };
    take(D, units * s.K * s.V), take(X, adds_dv ? units * kC * s.V : 0),
        take(parts, units * (s.K + 4));
    take(keys, s.HV > s.H ? s.chunks() * s.H * 2 * kC * s.K : 0);
    bytes = p - static_cast<char*>(memory);
  }
  bf16* D;       // [K, V] dL/dS' of the state that leaves
  bf16* X;       // [64, V] dL/dV, where dv is added to; else dv itself is read again
  float* parts;  // [K + 4]
  float* keys;   // by chunk and query head [2, 64, K]: dq, dk of the value heads so far
  int64_t bytes;
};

struct Rows {  // [N, heads, ..]: row n at data + n * stride
  bf16* data;
  int64_t stride;
  __device__ bf16* operator[](int64_t n) const { return data + n * stride; }
};
inline Rows rows(const Tensor& t) {
  return {static_cast<bf16*>(t.data), t.stride[0]};
}

struct Gate {
  const float *A_log, *bias;  // [HV], [HV, K]
  int bounded;
  float lower_bound, beta_max;
};
template <class Args>
Gate gate_of(const Args& a) {
  return {a.A_log.template as<float>(), a.dt_bias.template as<float>(),
          a.params.gate == GateLaw::bounded, float(a.params.gate_lower_bound),
          float(a.params.beta_max)};
}

__device__ inline float sigmoid(float x) {
  return __fdividef(1, 1 + __expf(-x));
}
// log(1 + e^x); what the sum 1 + e rounds away is given back as a factor.
__device__ inline float softplus(float x) {
  const float e = __expf(-fabsf(x)), u = 1 + e;
  return fmaxf(x, 0) + (u == 1 ? e : __logf(u) * __fdividef(e, u - 1));
}
// Log decay of a logit z, bias added; A = e^{A_log}.
__device__ inline float log_decay(const Gate& gate, float A, float z) {
  const float g = gate.bounded ? gate.lower_bound * sigmoid(A * z) : -A * softplus(z);
  return fmaxf(g, kForgotten);
}

// Norms and write strengths of a chunk's tokens, a warp a token; zeros beyond C. The scale K^-1/2
// of the query is in q_norm. Loads are without conditions, so that many are under way at once.
template <int D, int threads>
__device__ void load_norms(Rows q, Rows k, Rows beta, const Gate& gate, ChunkAt at, int h, int hv,
                           float* q_norm, float* k_norm, float* b) {
  constexpr int kTokens = kC * 32 / threads, kEach = D / 64;
  const int lane = threadIdx.x % 32, first = threadIdx.x / 32 * kTokens;
  uint32_t x[kTokens][kEach], y[kTokens][kEach];
#pragma unroll
  for (int r = 0; r < kTokens; ++r)
#pragma unroll
    for (int e = 0; e < kEach; ++e) {
      const int64_t n = at.n0 + min(first + r, at.C - 1);
      x[r][e] = reinterpret_cast<const uint32_t*>(q[n] + h * D)[lane + 32 * e];
      y[r][e] = reinterpret_cast<const uint32_t*>(k[n] + h * D)[lane + 32 * e];
    }
#pragma unroll
  for (int r = 0; r < kTokens; ++r) {
    float qq = 0, kk = 0;
#pragma unroll
    for (int e = 0; e < kEach; ++e) {
      const float2 qe = unpack(x[r][e]), ke = unpack(y[r][e]);
      qq += qe.x * qe.x + qe.y * qe.y;
      kk += ke.x * ke.x + ke.y * ke.y;
    }
    qq = warp_sum(qq), kk = warp_sum(kk);
    if (lane != 0) continue;
    const int i = first + r;
    const bool there = i < at.C;
    q_norm[i] = there ? rsqrtf(qq + kEps) * rsqrtf(float(D)) : 0;
    k_norm[i] = there ? rsqrtf(kk + kEps) : 0;
  }
  if (threadIdx.x < kC) {
    const int i = threadIdx.x;
    const float logit = __bfloat162float(beta[at.n0 + min(i, at.C - 1)][hv]);
    b[i] = i < at.C ? gate.beta_max * sigmoid(logit) : 0;
  }
}

// How the decay inside a chunk splits: G [64, D + 4] sums g from the start of each 16 rows, total
// [4, D] is each 16 rows' sum.
template <int D>
struct Decay {
  static constexpr int kPitch = D + 4;
  float* G;
  float* total;
  // sum of the blocks from <= I < to
  __device__ float between(int from, int to, int d) const {
    float sum = 0;
    for (int I = from; I < to; ++I) sum += total[I * D + d];
    return sum;
  }
  __device__ float at(int i, int d) const { return G[i * kPitch + d]; }
  // From row i to the end of its 16 rows.
  __device__ float rest(int i, int d) const { return at(i | 15, d) - at(i, d); }
  // From the middle of its 16 rows to row i: e to this or its negative is finite where safe.
  __device__ float from_middle(int i, int d) const { return at(i, d) - at((i & ~15) + 7, d); }
};

// e^{+-from_middle} may be used as factors up to here: products of two stay in f32.
constexpr float kSafeRange = 41;

// Fills G, total and unsafe [4] (zeroed before): a thread a channel and some of the four blocks.
template <int D, int threads>
__device__ void load_decay(Rows g, const Gate& gate, ChunkAt at, int hv, Decay<D> decay,
                           int* unsafe) {
  const int d = threadIdx.x % D;
  const float A = __expf(gate.A_log[hv]), bias = gate.bias[hv * D + d];
  for (int I = threadIdx.x / D; I < kC / 16; I += threads / D) {
    float sum = 0;
#pragma unroll 1
    for (int r = 0; r < 16; r += 8) {  // more at once would be more code than its cache holds
      float z[8];
#pragma unroll
      for (int e = 0; e < 8; ++e)
        z[e] = __bfloat162float(g[at.n0 + min(I * 16 + r + e, at.C - 1)][hv * D + d]);
#pragma unroll
      for (int e = 0; e < 8; ++e) {
        const int i = I * 16 + r + e;
        sum += i < at.C ? log_decay(gate, A, z[e] + bias) : 0;
        decay.G[i * Decay<D>::kPitch + d] = sum;
      }
    }
    decay.total[I * D + d] = sum;
    const float middle = decay.at(I * 16 + 7, d);
    if (decay.at(I * 16, d) - middle > kSafeRange || middle - sum > kSafeRange) unsafe[I] = 1;
  }
}

template <class Kernel>
void allow_shared(Kernel kernel, size_t bytes) {
  SLUICE_CUDA(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes)));
}

}  // namespace sluice::cuda::kda_gpu
