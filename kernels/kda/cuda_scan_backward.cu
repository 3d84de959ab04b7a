// kernels/kda/cuda_scan_backward.cu -- the state's gradient through a document's chunks, last to
// first.
//
//   dE = P^T dO + K- D     X = (I + L)^-T dE = dV     D before = gamma D + Q+^T dO - K+^T X
//
// As in cuda_scan.cu a CTA has kVTile columns of one value head.
#include "kernels/kda/cuda_ops.h"
#include "kernels/kda/cuda_stage.cuh"

namespace sluice::cuda::kda_gpu {

namespace {

template <int D>
struct Shared {
  Stage<D> stage[2];
  bf16 D_state[D * kVPitch];
  bf16 dE[kC * kVPitch], minus_X[kC * kVPitch];
};

struct Tensors {
  Rows d_o, dv;
  int add_dv;
  const float* dfinal;  // [documents, HV, D, D], or null
  float* dinitial;      // likewise
  int add_dinitial, HV;
};

template <int D>
__device__ void chunk_step(const Tensors& t, const Memory& m, const BackwardMemory& b,
                           const Stage<D>& c, Shared<D>& s, ChunkAt at, int64_t unit, int hv,
                           int v0, float (&state)[4][4]) {
  using W = Warp<D>;
  const int warp = threadIdx.x / 32, mt = warp % 4, n = warp / 4 * 16;
  float e[2][4] = {}, x[2][4] = {};
  for (int k = mt; k < 4; ++k)
    product_transposed<16, 2>(e, c.P + k * 16 * kScorePitch + mt * 16, kScorePitch,
                              c.v + k * 16 * kVPitch, n);
  product<D, 2>(e, c.k_minus + mt * 16 * Stage<D>::kPitch, Stage<D>::kPitch, s.D_state, n);
  for (int j = 0; j < 2; ++j)
    for (int half = 0; half < 2; ++half)
      *reinterpret_cast<uint32_t*>(s.dE + (mt * 16 + W::row(half)) * kVPitch + n + j * 8 +
                                   W::column()) = pack(e[j][2 * half], e[j][2 * half + 1]);
  __syncthreads();
  for (int k = mt; k < 4; ++k)
    product_transposed<16, 2>(x, c.A + k * 16 * kScorePitch + mt * 16, kScorePitch,
                              s.dE + k * 16 * kVPitch, n);
  for (int j = 0; j < 2; ++j)
    for (int half = 0; half < 2; ++half) {
      const int i = mt * 16 + W::row(half), column = n + j * 8 + W::column();
      const float x0 = x[j][2 * half], x1 = x[j][2 * half + 1];
      *reinterpret_cast<uint32_t*>(s.minus_X + i * kVPitch + column) = pack(-x0, -x1);
      *reinterpret_cast<uint32_t*>(b.X + (unit * kC + i) * D + v0 + column) = pack(x0, x1);
      if (i >= at.C) continue;
      auto* dv = reinterpret_cast<uint32_t*>(t.dv[at.n0 + i] + hv * D + v0 + column);
      const float2 before = t.add_dv ? unpack(*dv) : float2{0, 0};
      *dv = pack(before.x + x0, before.y + x1);
    }
  __syncthreads();
  W::decay(state, m.gamma + unit * D);
  product_transposed<kC, W::kTiles>(state, c.q_plus + W::state_row(), Stage<D>::kPitch, c.v,
                                    W::state_column());
  product_transposed<kC, W::kTiles>(state, c.k_plus + W::state_row(), Stage<D>::kPitch, s.minus_X,
                                    W::state_column());
}

template <int D>
__global__ void __launch_bounds__(kThreads, 1)
    scan_backward_kernel(Tensors t, Memory m, BackwardMemory b) {
  using W = Warp<D>;
  extern __shared__ __align__(16) char memory[];
  Shared<D>& s = *reinterpret_cast<Shared<D>*>(memory);
  const int v0 = blockIdx.x * kVTile, hv = blockIdx.y, document = blockIdx.z;
  const int begin = m.first[document], end = m.first[document + 1];
  const int64_t at_state = (int64_t(document) * t.HV + hv) * D * D + v0;
  float state[4][4];
  W::load(state, t.dfinal ? t.dfinal + at_state : nullptr);
  const auto load = [&](int chunk) {
    load_stage(s.stage[chunk % 2], m, t.d_o, m.chunk[chunk], int64_t(chunk) * t.HV + hv,
               hv * D + v0);
  };
  if (begin < end) load(end - 1);
  for (int chunk = end - 1; chunk >= begin; --chunk) {
    const int64_t unit = int64_t(chunk) * t.HV + hv;
    W::store_rounded(state, s.D_state, kVPitch);
    W::store_rounded(state, b.D + unit * D * D + v0, D);
    wait_for_copies();
    __syncthreads();
    if (chunk > begin) load(chunk - 1);
    chunk_step<D>(t, m, b, s.stage[chunk % 2], s, m.chunk[chunk], unit, hv, v0, state);
  }
  if (t.dinitial) W::store(state, t.dinitial + at_state, t.add_dinitial);
}

template <int D>
void scan_backward(const Context& ctx, const KdaBackward& a, const kda::Sizes& s, const Memory& m,
                   const BackwardMemory& b) {
  const Tensors t{rows(a.d_o),
                  rows(a.dv.t),
                  a.dv.add,
                  a.dfinal_state ? a.dfinal_state.as<float>() : nullptr,
                  a.dinitial_state ? a.dinitial_state.t.as<float>() : nullptr,
                  a.dinitial_state.add,
                  int(s.HV)};
  allow_shared(scan_backward_kernel<D>, sizeof(Shared<D>));
  scan_backward_kernel<D><<<dim3(D / kVTile, unsigned(s.HV), unsigned(s.documents)), kThreads,
                            sizeof(Shared<D>), ctx.stream>>>(t, m, b);
  SLUICE_LAUNCHED(ctx.stream);
}

}  // namespace

void scan_backward(const Context& ctx, const KdaBackward& a, const kda::Sizes& s, const Memory& m,
                   const BackwardMemory& b) {
  if (s.K == 64)
    scan_backward<64>(ctx, a, s, m, b);
  else
    scan_backward<128>(ctx, a, s, m, b);
}

}  // namespace sluice::cuda::kda_gpu
