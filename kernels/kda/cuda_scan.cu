// kernels/kda/cuda_scan.cu -- the state through a document's chunks, first to last.
//
//   Y = V - K+ S      E = (I + L)^-1 Y      O = Q+ S + P E      S' = gamma S + K-^T E
//
// A CTA has kVTile columns of one value head's state, in f32 accumulators: a column depends on no
// other. The next chunk's operands come in while this one is computed.
#include "kernels/kda/cuda_ops.h"
#include "kernels/kda/cuda_stage.cuh"

namespace sluice::cuda::kda_gpu {

namespace {

template <int D>
struct Shared {
  Stage<D> stage[2];
  bf16 S[D * kVPitch];
  bf16 Y[kC * kVPitch], E[kC * kVPitch];
};

struct Tensors {
  Rows v, o;
  const float* initial;  // [documents, HV, D, D], or null
  float* final;          // likewise
  int HV;
};

// The part of O, E and S' that one chunk asks of a warp. `c` is the chunk's stage.
template <int D>
__device__ void chunk_step(const Tensors& t, const Memory& m, const Stage<D>& c, Shared<D>& s,
                           ChunkAt at, int64_t unit, int hv, int v0, float (&state)[4][4],
                           bool keeps) {
  using W = Warp<D>;
  const int warp = threadIdx.x / 32, mt = warp % 4, n = warp / 4 * 16;
  float read[4][4] = {};  // rows of [K+; Q+] S: K+ of warps 0 .. 3, Q+ of 4 .. 7
  product<D, 4>(read, (warp < 4 ? c.k_plus : c.q_plus) + mt * 16 * Stage<D>::kPitch,
                Stage<D>::kPitch, s.S, 0);
  if (warp < 4)
    for (int j = 0; j < 4; ++j)
      for (int half = 0; half < 2; ++half) {
        const int at_v = (mt * 16 + W::row(half)) * kVPitch + j * 8 + W::column();
        const float2 v = unpack(*reinterpret_cast<const uint32_t*>(c.v + at_v));
        *reinterpret_cast<uint32_t*>(s.Y + at_v) =
            pack(v.x - read[j][2 * half], v.y - read[j][2 * half + 1]);
      }
  __syncthreads();
  float e[2][4] = {};
  for (int k = 0; k <= mt; ++k)
    product<16, 2>(e, c.A + mt * 16 * kScorePitch + k * 16, kScorePitch, s.Y + k * 16 * kVPitch, n);
  for (int j = 0; j < 2; ++j)
    for (int half = 0; half < 2; ++half) {
      const int i = mt * 16 + W::row(half), column = n + j * 8 + W::column();
      const uint32_t x = pack(e[j][2 * half], e[j][2 * half + 1]);
      *reinterpret_cast<uint32_t*>(s.E + i * kVPitch + column) = x;
      if (keeps) *reinterpret_cast<uint32_t*>(m.E + (unit * kC + i) * D + v0 + column) = x;
    }
  __syncthreads();
  if (warp >= 4) {
    for (int k = 0; k <= mt; ++k)
      product<16, 4>(read, c.P + mt * 16 * kScorePitch + k * 16, kScorePitch,
                     s.E + k * 16 * kVPitch, 0);
    for (int j = 0; j < 4; ++j)
      for (int half = 0; half < 2; ++half)
        if (const int i = mt * 16 + W::row(half); i < at.C)
          *reinterpret_cast<uint32_t*>(t.o[at.n0 + i] + hv * D + v0 + j * 8 + W::column()) =
              pack(read[j][2 * half], read[j][2 * half + 1]);
  }
  W::decay(state, m.gamma + unit * D);
  product_transposed<kC, W::kTiles>(state, c.k_minus + W::state_row(), Stage<D>::kPitch, s.E,
                                    W::state_column());
}

template <int D>
__global__ void __launch_bounds__(kThreads, 1) scan_kernel(Tensors t, Memory m, int keeps) {
  using W = Warp<D>;
  extern __shared__ __align__(16) char memory[];
  Shared<D>& s = *reinterpret_cast<Shared<D>*>(memory);
  const int v0 = blockIdx.x * kVTile, hv = blockIdx.y, document = blockIdx.z;
  const int begin = m.first[document], end = m.first[document + 1];
  const int64_t at_state = (int64_t(document) * t.HV + hv) * D * D + v0;
  float state[4][4];
  W::load(state, t.initial ? t.initial + at_state : nullptr);
  if (begin < end)
    load_stage(s.stage[0], m, t.v, m.chunk[begin], int64_t(begin) * t.HV + hv, hv * D + v0);
  for (int chunk = begin; chunk < end; ++chunk) {
    const int64_t unit = int64_t(chunk) * t.HV + hv;
    W::store_rounded(state, s.S, kVPitch);
    if (keeps) W::store_rounded(state, m.S + unit * D * D + v0, D);
    wait_for_copies();
    __syncthreads();
    if (chunk + 1 < end)
      load_stage(s.stage[(chunk + 1 - begin) % 2], m, t.v, m.chunk[chunk + 1], unit + t.HV,
                 hv * D + v0);
    chunk_step<D>(t, m, s.stage[(chunk - begin) % 2], s, m.chunk[chunk], unit, hv, v0, state,
                  keeps);
  }
  if (t.final) W::store(state, t.final + at_state, false);
}

template <int D>
void scan(const Context& ctx, const KdaForward& a, const kda::Sizes& s, const Memory& m) {
  const Tensors t{rows(a.v), rows(a.o), a.initial_state ? a.initial_state.as<float>() : nullptr,
                  a.final_state ? a.final_state.as<float>() : nullptr, int(s.HV)};
  allow_shared(scan_kernel<D>, sizeof(Shared<D>));
  scan_kernel<D><<<dim3(D / kVTile, unsigned(s.HV), unsigned(s.documents)), kThreads,
                   sizeof(Shared<D>), ctx.stream>>>(t, m, bool(a.saved));
  SLUICE_LAUNCHED(ctx.stream);
}

}  // namespace

void scan(const Context& ctx, const KdaForward& a, const kda::Sizes& s, const Memory& m) {
  if (s.K == 64)
    scan<64>(ctx, a, s, m);
  else
    scan<128>(ctx, a, s, m);
}

}  // namespace sluice::cuda::kda_gpu
