// kernels/kda/cuda.cuh -- what the CUDA kernels share: memory between them, the gate, rows.
#pragma once

#include <cmath>

#include "kernels/base/cuda_check.h"
#include "kernels/device/mma.cuh"
#include "kernels/device/reduce.cuh"
#include "kernels/kda/saved.h"

namespace sluice::cuda::kda_gpu {

constexpr int kC = int(kKdaChunk);
constexpr float kEps = float(kKdaNormEps);

// e^-128 is 0 in f32, and so is every product with it: log decays below it are set to it, which
// changes nothing, keeps sums finite and their rounding errors small.
constexpr float kForgotten = -128;

// Tokens n0 .. n0 + C of document doc; C is 0 beyond the last chunk.
struct ChunkAt {
  int n0, C;
};

// Workspace of forward; backward reads it again, A, E and S are there for it alone. By chunk and
// value head, rows of a chunk's missing tokens are zero. Chunks are numbered document by document.
struct Memory {
  Memory(void* memory, const kda::Sizes& s, bool keeps) {
    const int64_t units = s.chunks() * s.HV, kept = keeps ? units : 0;
    char* p = static_cast<char*>(memory);
    const auto take = [&p](auto*& to, int64_t count) {
      to = reinterpret_cast<std::remove_reference_t<decltype(to)>>(p);
      p += (count * int64_t(sizeof(*to)) + 255) / 256 * 256;
    };
    take(q_plus, units * kC * s.K), take(k_plus, units * kC * s.K), take(W, units * kC * s.K);
    take(R, units * kC * kC), take(A, kept * kC * kC);
    take(E, kept * kC * s.V), take(S, kept * s.K * s.V);
    take(gamma, units * s.K), take(chunk, s.chunks()), take(first, s.documents + 1);
    bytes = p - static_cast<char*>(memory);
  }
  bf16 *q_plus, *k_plus;  // [64, K] q e^G, k e^G
  bf16* W;                // [64, K] A^T (w e^{G_C - G})
  bf16* R;                // [64, 64] P A
  bf16* A;                // [64, 64] (I + L)^-1
  bf16* E;                // [64, V]
  bf16* S;                // [K, V] the state that enters
  float* gamma;           // [K] e^{G_C}
  ChunkAt* chunk;         // [chunks]
  int* first;             // [documents + 1] number of a document's first chunk
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

// e^{+-x}, x a block's log decay from its middle, may be used as factors up to here: products of
// two stay in f32.
constexpr float kSafeRange = 41;

template <class Kernel>
void allow_shared(Kernel kernel, size_t bytes) {
  SLUICE_CUDA(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes)));
}

}  // namespace sluice::cuda::kda_gpu
