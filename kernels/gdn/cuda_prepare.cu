// kernels/gdn/cuda_prepare.cu -- all that a chunk needs from q, k, g and beta alone, chunks in
// parallel: products of the rows as they are, times norms, write strengths and decays.
#include "kernels/device/unit_lower.cuh"
#include "kernels/device/wgmma.cuh"
#include "kernels/gdn/cuda_ops.h"

namespace sluice::cuda::gdn_gpu {

namespace {

constexpr int kThreads = 256;

template <int D>
struct Shared {
  static constexpr int kPitch = D + 8;
  union {
    struct {
      bf16 q[kC * kPitch], k[kC * kPitch];
    } in;
    float room[kC * kUnitLowerPitch];
  };
  union {
    float decay[kC * kDecayPitch];
    float A[kC * kUnitLowerPitch];
  };
  float L[kC * kUnitLowerPitch];
  Tokens tokens;
};

struct Inputs {
  Rows q, k, g, beta;
  Gate gate;
  int H, HV;
};

// L (shared) and P (global), a warp a block [16, 16] of the ten that are not above the diagonal.
template <int D>
__device__ void make_scores(Shared<D>& s, bool delta_rule, bf16* P) {
  constexpr int kPitch = Shared<D>::kPitch;
  const Tokens& t = s.tokens;
  for (int block = int(threadIdx.x) / 32; block < 10; block += kThreads / 32) {
    const int I = block < 1 ? 0 : block < 3 ? 1 : block < 6 ? 2 : 3, J = block - I * (I + 1) / 2;
    float p[2][4] = {}, l[2][4] = {};
#pragma unroll
    for (int d = 0; d < D; d += 16) {
      uint32_t q[4], k[4], w[4];
      load_a(q, s.in.q + I * 16 * kPitch + d, kPitch);
      load_a(k, s.in.k + I * 16 * kPitch + d, kPitch);
      load_b_transposed(w, s.in.k + J * 16 * kPitch + d, kPitch);
      mma(p[0], q, w[0], w[1]), mma(p[1], q, w[2], w[3]);
      mma(l[0], k, w[0], w[1]), mma(l[1], k, w[2], w[3]);
    }
#pragma unroll
    for (int x = 0; x < 8; x += 2) {
      const int tile = x / 4, e = x % 4, i = I * 16 + tile_row(e);
      float ps[2];
      for (int y = 0; y < 2; ++y) {
        const int j = J * 16 + tile * 8 + tile_column(e + y);
        const float r = s.decay[i * kDecayPitch + j] * t.k_norm[j] * t.b[j];
        ps[y] = p[tile][e + y] * t.q_norm[i] * r;
        s.L[i * kUnitLowerPitch + j] = delta_rule && j < i ? l[tile][e + y] * t.k_norm[i] * r : 0;
      }
      store_pair(P + tile_at(i, J * 16 + tile * 8 + tile_column(0)), ps[0], ps[1]);
    }
  }
}

__device__ void store_factors(const Tokens& t, bool delta_rule, Factors& to) {
  if (threadIdx.x >= kC) return;
  const int i = int(threadIdx.x);
  const float since = t.from_start(i);
  to.q[i] = t.q_norm[i] * since;
  to.k[i] = delta_rule ? t.k_norm[i] * since : 0;
  to.w[i] = t.k_norm[i] * t.b[i] * t.to_end(i);
  if (i == 0) to.gamma = __expf(t.between(0, 4));
}

template <int D>
__global__ void __launch_bounds__(kThreads) prepare_kernel(Inputs in, Memory m) {
  extern __shared__ __align__(16) char memory[];
  Shared<D>& s = *reinterpret_cast<Shared<D>*>(memory);
  constexpr int kPitch = Shared<D>::kPitch;
  const int64_t unit = blockIdx.x;
  const int hv = int(unit % in.HV), h = hv / (in.HV / in.H);
  const ChunkAt at = m.chunk[unit / in.HV];
  if (at.C == 0) return;
  copy_rows<D, kThreads>(s.in.q, kPitch, in.q, at, h * D);
  copy_rows<D, kThreads>(s.in.k, kPitch, in.k, at, h * D);
  load_gates(in.g, in.beta, in.gate, at, hv, s.tokens);
  wait_for_copies();
  __syncthreads();
  make_norms<D, kThreads>(s.in.q, s.in.k, kPitch, at, s.tokens);
  make_decay(s.tokens, s.decay);
  __syncthreads();
  store_factors(s.tokens, in.gate.delta_rule, m.factors[unit]);
  make_scores(s, in.gate.delta_rule, m.P + unit * kC * kC);
  __syncthreads();
  invert_unit_lower(s.L, s.A, s.room);
  bf16 *A = m.A + unit * kTile, *P = m.P + unit * kTile;
  for (int e = int(threadIdx.x); e < kC * kC / 2; e += kThreads) {
    const int i = e / (kC / 2), j = e % (kC / 2) * 2, at = tile_at(i, j);
    const bool there = j <= (i | 15);
    const float* from = s.A + i * kUnitLowerPitch + j;
    store_pair(A + at, there ? from[0] : 0, there ? from[1] : 0);
    if (!there) store_pair(P + at, 0, 0);
  }
}

template <int D>
void prepare(const Context& ctx, const GdnForward& a, const gdn::Sizes& s, const Memory& m) {
  const Inputs in{rows_of(a.q), rows_of(a.k), rows_of(a.g), beta_of(a),
                  gate_of(a),   int(s.H),     int(s.HV)};
  allow_shared(prepare_kernel<D>, sizeof(Shared<D>));
  prepare_kernel<D>
      <<<unsigned(s.chunks() * s.HV), kThreads, sizeof(Shared<D>), ctx.stream>>>(in, m);
  SLUICE_LAUNCHED(ctx.stream);
}

}  // namespace

void prepare(const Context& ctx, const GdnForward& a, const gdn::Sizes& s, const Memory& m) {
  chunks::make_chunk_table(ctx, a.cu_seqlens, s.chunks(), kC, m.chunk, m.first);
  if (s.K == 64)
    prepare<64>(ctx, a, s, m);
  else
    prepare<128>(ctx, a, s, m);
}

}  // namespace sluice::cuda::gdn_gpu
