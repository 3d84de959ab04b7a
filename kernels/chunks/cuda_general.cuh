// kernels/chunks/cuda_general.cuh -- kda and gdn on the GPU for the head dims that the tensor
// cores' kernels are not made for: K and V multiples of 8 up to 256. Plain loops in f32, chunks
// of 16.
//
// The formulas are those of kernels/kda/README.md; gdn is the case of one gate for all channels,
// and without the delta rule there is no L and nothing read at k. Every exponent is a sum of log
// decays over its own tokens, each pair's by channel.
#pragma once

#include <cstdint>

#include "kernels/chunks/cuda_table.h"
#include "kernels/device/vec.cuh"

namespace sluice::chunks {

constexpr int kGeneralChunk = 16;
constexpr int64_t kGeneralMaxDim = 256;

struct GeneralGate {
  const float *A_log, *bias;  // [HV], [HV, G]
  float lower_bound;          // of the bounded law
  float beta_max;
  int bounded, delta_rule;
};

struct GeneralSizes {
  int64_t N, documents, H, HV, K, V, G;  // G logits a value head: K, or 1 for all channels
  int64_t chunks() const { return N / kGeneralChunk + documents; }
};

struct General {
  GeneralSizes size;
  GeneralGate gate;
  Rows q, k;          // [N, H, K]
  Rows v;             // [N, HV, V]
  Rows z;             // [N, HV, G]
  Rows beta;          // [N, HV], of the delta rule
  Tensor cu_seqlens;  // [documents + 1]
  float eps;          // of the L2 norms
};

struct GeneralForward : General {
  Rows o;                // [N, HV, V]
  const float* initial;  // [documents, HV, K, V], or null
  float* final;          // likewise
};

struct GeneralBackward : General {
  Rows d_o;             // [N, HV, V]
  Rows dq, dk, dv, dz;  // as q, k, v, z
  Rows dbeta;           // of the delta rule
  int add_dq, add_dk, add_dv, add_dz, add_dbeta;
  const float* dfinal;  // [documents, HV, K, V], or null
  float* dinitial;      // likewise
  int add_dinitial;
  Grad dA_log, ddt_bias;  // [HV], [HV * G]
};

// Bytes of forward's workspace, which backward reads again if it was kept; of backward's own.
int64_t general_bytes(const GeneralSizes& s, bool keeps);
int64_t general_backward_bytes(const GeneralSizes& s);

void general_forward(const Context& ctx, const GeneralForward& a, void* workspace, bool keeps);
void general_backward(const Context& ctx, const GeneralBackward& a, void* kept, void* scratch);

// Workspace of forward; E and S are there for backward alone. A unit is a chunk's value head.
struct GeneralMemory {
  GeneralMemory(void* memory, const GeneralSizes& s, bool keeps) {
    constexpr int64_t C = kGeneralChunk;
    const int64_t rows = s.N * s.HV, units = s.chunks() * s.HV, kept = keeps ? units : 0;
    Pieces from{static_cast<char*>(memory)};
    from.take(q, rows * s.K), from.take(k, rows * s.K);
    from.take(g, rows * s.G), from.take(b, rows);
    from.take(L, units * C * C), from.take(P, units * C * C);
    from.take(E, kept * C * s.V), from.take(S, kept * s.K * s.V);
    from.take(chunk, s.chunks()), from.take(first, s.documents + 1);
    bytes = from.p - static_cast<char*>(memory);
  }
  float *q, *k;    // [N, HV, K] of length K^-1/2 and 1
  float* g;        // [N, HV, G] log decay
  float* b;        // [N, HV] write strength
  float *L, *P;    // by unit [16, 16]
  float* E;        // by unit [16, V]
  float* S;        // by unit [K, V], the state that enters
  ChunkAt* chunk;  // [chunks]
  int* first;      // [documents + 1] number of a document's first chunk
  int64_t bytes;
};

constexpr int64_t kGeneralSumRows = 256;  // tokens whose gradients of parameters are summed first

// a, r and c are the cotangents of q, of k as a reader and of w = b k, after the norms.
struct GeneralScratch {
  GeneralScratch(void* memory, const GeneralSizes& s) {
    const int64_t rows = s.N * s.HV, units = s.chunks() * s.HV;
    Pieces from{static_cast<char*>(memory)};
    from.take(X, units * kGeneralChunk * s.V), from.take(D, units * s.K * s.V);
    from.take(a, rows * s.K), from.take(r, rows * s.K), from.take(c, rows * s.K);
    from.take(dg, rows * s.K), from.take(dz, rows * s.G), from.take(dA, rows);
    from.take(parts, (s.N + kGeneralSumRows - 1) / kGeneralSumRows * s.HV * s.G);
    bytes = from.p - static_cast<char*>(memory);
  }
  float* X;          // by unit [16, V] dL/dV
  float* D;          // by unit [K, V] dL/dS' of the state that leaves
  float *a, *r, *c;  // [N, HV, K]
  float* dg;         // [N, HV, K] of the log decay
  float* dz;         // [N, HV, G] of the gate's logits
  float* dA;         // [N, HV] of A_log
  float* parts;      // [N / 256, HV * G]
  int64_t bytes;
};

namespace general {

constexpr int kC = kGeneralChunk, kThreads = 256, kVTile = 32;
constexpr float kForgotten = -128;  // e^-128 is 0 in f32; keeps sums finite

__device__ inline float logistic(float x) {
  return 1 / (1 + expf(-x));
}
__device__ inline float log_1_plus_exp(float x) {
  return fmaxf(x, 0) + log1pf(expf(-fabsf(x)));
}

// A chunk's factors of the state in shared memory: q and k times the decay from its start, w times
// the decay to its end, e^{G_C}; zeros for missing tokens. A thread a channel.
struct ChunkRows {
  float *q, *k, *w;  // [16, K]
  float* gamma;      // [K]
};
__device__ inline void load_rows(const ChunkRows& to, const GeneralMemory& m, const GeneralSizes& s,
                                 int delta_rule, ChunkAt at, int hv) {
  for (int d = int(threadIdx.x); d < s.K; d += kThreads) {
    float sum = 0, g[kC];
#pragma unroll
    for (int i = 0; i < kC; ++i) {
      const int64_t row = (at.n0 + min(i, at.C - 1)) * s.HV + hv;
      const bool there = i < at.C;
      g[i] = there ? m.g[row * s.G + (s.G == 1 ? 0 : d)] : 0;
      sum += g[i];
      const float x = expf(sum), k = m.k[row * s.K + d];
      to.q[i * s.K + d] = there ? m.q[row * s.K + d] * x : 0;
      to.k[i * s.K + d] = there && delta_rule ? k * x : 0;
      to.w[i * s.K + d] = there ? k * m.b[row] : 0;
    }
    to.gamma[d] = expf(sum);
    sum = 0;
#pragma unroll
    for (int i = kC - 1; i >= 0; --i) {
      to.w[i * s.K + d] *= expf(sum);
      sum += g[i];
    }
  }
}

// What a scan has in shared memory.
struct ScanMemory {
  __device__ ScanMemory(float* p, int K) {
    state = p, p += K * kVTile;
    rows.q = p, p += kC * K;
    rows.k = p, p += kC * K;
    rows.w = p, p += kC * K;
    rows.gamma = p, p += K;
    L = p, p += kC * kC;
    P = p, p += kC * kC;
    x = p, p += kC * kVTile;
    y = p;
  }
  static size_t bytes(int64_t K) {
    return size_t(K * kVTile + (3 * kC + 1) * K + 2 * kC * kC + 2 * kC * kVTile) * sizeof(float);
  }
  float* state;  // [K, 32]
  ChunkRows rows;
  float *L, *P;  // [16, 16]
  float *x, *y;  // [16, 32]
};

// q, k, g and b of all tokens.
void make_rows(const Context& ctx, const General& a, const GeneralMemory& m);
// From a, r, c and dg to the gradients of q, k, z, beta and the parameters.
void rows_backward(const Context& ctx, const GeneralBackward& a, const GeneralMemory& m,
                   const GeneralScratch& b);

template <class Kernel>
void allow_shared(Kernel kernel, size_t bytes) {
  SLUICE_CUDA(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes)));
}

}  // namespace general

}  // namespace sluice::chunks
