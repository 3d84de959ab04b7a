// kernels/kda/cuda_gradients.cuh -- what the parts of cuda_gradients.cu share: a CTA's memory, who
// has which elements, copies of the next chunk.
//
// Two layouts of a [64, D]: of products, a warp 16 rows (a block) and 32 channels in the
// accumulators of mma; of gates, a thread two channels of eight rows (half a block).
#pragma once

#include "kernels/kda/cuda.cuh"
#include "kernels/kda/cuda_tiles.cuh"

namespace sluice::cuda::kda_gpu {

struct Gradients {
  Rows q, k, g, beta, d_o, dv;
  Rows dq, dk, dg, dbeta;
  int add_dq, add_dk, add_dg, add_dbeta, add_dv;
  Gate gate;
  int H, HV, chunks;
};

// A chunk of value head hv, which reads query head h.
struct Unit {
  ChunkAt at;
  int64_t chunk;
  int h, hv;
};

template <int D>
struct Shared {
  static constexpr int kThreads = 4 * D, kParts = D / 32;
  bf16 S[D * D], D_state[D * D], d_o[kC * D];
  bf16 X[kC * D], E[kC * D];  // then q and k as they came, then dq and dk
  // q, k and the gate's logits as they come; then the factors, q, k and w times the decay to or
  // from an anchor in their block; then what comes for the next chunk.
  bf16 q[kC * D], k[kC * D], w[kC * D];
  bf16 N[kC * kC], M[kC * kC];  // strictly lower
  float exponent[kC * D];       // log2 of the decay from the middle of a row's block; then dG
  union {
    // Decays of whole blocks: from the anchor of w in J to that of q in I > J, at
    // I (I - 1) / 2 + J; from the chunk's start to that of q; from that of w to the chunk's end.
    struct {
      float across[6 * D], start[4 * D], end[4 * D];
    };
    float dbias[8 * D];  // sums over 8 rows
  };
  float half[8 * D];                 // log2 of the decay over 8 rows; then their sum of dG
  float last[D], last_parts[4 * D];  // what row 63 of dG gets on top
  float q_norm[kC], k_norm[kC], beta[kC], diagonal[kC];       // diagonal of N
  float q_dq[kParts][kC], k_dk[kParts][kC], k_c[kParts][kC];  // sums over 32 channels
  float dA[kThreads / 32];
  int unsafe[4];  // block: a decay from its middle leaves e^{+-41}
};

// Layout of products: element e of tile j lies at row(e / 2), channel(j) + e % 2.
template <int D>
struct Sums {
  float a[4][4], r[4][4], c[4][4];

  __device__ static int block() { return int(threadIdx.x) / 32 % 4; }
  __device__ static int part() { return int(threadIdx.x) / 128; }
  __device__ static int row(int half) {
    return block() * 16 + int(threadIdx.x) % 32 / 4 + half * 8;
  }
  __device__ static int channel(int tile) {
    return part() * 32 + tile * 8 + int(threadIdx.x) % 4 * 2;
  }
  // Where row(half), channel(tile) lie in a [64, D].
  __device__ static int at(int half, int tile) {
    const int lane = int(threadIdx.x) % 32;
    return (block() * 16 + lane / 4) * D + half * 8 * D +
           (((part() * 4 + tile) ^ (lane / 4)) << 3) + lane % 4 * 2;
  }
};

// Layout of gates: rows 8 half() .., channels channel() and the next.
template <int D>
struct Column {
  __device__ static int half() { return int(threadIdx.x) / (D / 2); }
  __device__ static int channel() { return int(threadIdx.x) % (D / 2) * 2; }
  // Where the r-th row lies in a [64, D].
  __device__ static int at(int r) { return half() * 8 * D + r * D + (channel() ^ (r << 3)); }
};

// What through_states reads. X and E come later: their places are needed longer.
template <int D>
__device__ void load_states(const Gradients& t, const Memory& m, const BackwardMemory& b,
                            const Unit& u, Shared<D>& s) {
  constexpr int kThreads = Shared<D>::kThreads;
  const int64_t unit = u.chunk * t.HV + u.hv;
  load_matrix<D, kThreads, D>(s.S, m.S + unit * D * D, D, D);
  load_matrix<D, kThreads, D>(s.D_state, b.D + unit * D * D, D, D);
  load_matrix<D, kThreads, kC>(s.d_o, t.d_o[u.at.n0] + u.hv * D, t.d_o.stride, u.at.C);
}
template <int D>
__device__ void load_errors(const Gradients& t, const Memory& m, const BackwardMemory& b,
                            const Unit& u, Shared<D>& s) {
  constexpr int kThreads = Shared<D>::kThreads;
  const int64_t unit = u.chunk * t.HV + u.hv;
  const bf16* X = t.add_dv ? b.X + unit * kC * D : t.dv[u.at.n0] + u.hv * D;
  load_matrix<D, kThreads, kC>(s.X, X, t.add_dv ? D : t.dv.stride, u.at.C);
  load_matrix<D, kThreads, kC>(s.E, m.E + unit * kC * D, D, kC);
}
template <int D>
__device__ void load_keys(const Gradients& t, const Unit& u, Shared<D>& s) {
  constexpr int kThreads = Shared<D>::kThreads;
  load_matrix<D, kThreads, kC>(s.q, t.q[u.at.n0] + u.h * D, t.q.stride, u.at.C);
  load_matrix<D, kThreads, kC>(s.k, t.k[u.at.n0] + u.h * D, t.k.stride, u.at.C);
  load_matrix<D, kThreads, kC>(s.w, t.g[u.at.n0] + u.hv * D, t.g.stride, u.at.C);
}

}  // namespace sluice::cuda::kda_gpu
