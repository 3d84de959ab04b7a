// kernels/gdn/cuda_scan_backward.cu -- the state's gradient through a document's chunks, last to
// first.
//
//   dE = P^T dO + w K D      X = (I + L)^-T dE = dV
//   D before = gamma D + Q^T (e^G dO) - K^T (e^G X)
//
// cuda_stage.cuh has how a CTA holds it.
#include "kernels/gdn/cuda_ops.h"
#include "kernels/gdn/cuda_stage.cuh"

namespace sluice::cuda::gdn_gpu {

namespace {

struct Tensors {
  Rows dv;
  int add_dv;
  const float* dfinal;  // [documents, HV, D, D], or null
  float* dinitial;      // likewise
  int add_dinitial, H, HV;
};

// Operands [16, 64] over tokens times a factor a token.
__device__ void scale_operand(uint32_t (&a)[4][4], const float* by) {
#pragma unroll
  for (int s = 0; s < 4; ++s)
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const float2 f =
          *reinterpret_cast<const float2*>(by + s * 16 + r / 2 * 8 + int(threadIdx.x) % 4 * 2);
      const float2 x = unpack(a[s][r]);
      a[s][r] = pack(x.x * f.x, x.y * f.y);
    }
}

template <int D>
struct Scan {
  static constexpr int kSteps = D / 16;
  const Tensors& t;
  const Memory& m;
  const BackwardMemory& b;
  Shared<D>& s;
  int hv, v0;

  State<D> state;
  uint32_t a[kSteps][4];  // the state, rounded

  __device__ Room<D>& room() { return s.room[threadIdx.x / 32]; }
  __device__ int column() { return v0 + int(threadIdx.x) / 32 * 16; }

  __device__ void step(int chunk, Turn turn) {
    const Stage<D>& c = s.stage[turn.stage];
    const Factors& by = s.factors[turn.stage];
    const ChunkAt at = m.chunk[chunk];
    const int64_t out = (int64_t(chunk) * t.HV + hv) * D + column();
    float e[32], x[32];
    uint32_t d_o[4][4], f[4][4];
    s.full[turn.stage].wait(turn.parity);
    load_columns(d_o, c.v);
    wgmma_begin();
    product_transposed<kSteps>(e, a, c.k);
    product(x, d_o, c.P);
    wgmma_commit();
    store_rows<D, kSteps>(a, room(), b.D + out * D);
    wgmma_wait<0>();
    pin(e), pin(x);
    scale_operand(d_o, by.q);
    state.scale(by.gamma);
    scale_tokens(e, by.w);
#pragma unroll
    for (int i = 0; i < 32; ++i) e[i] += x[i];
    pack_tokens(f, e);
    wgmma_begin();
    product(x, f, c.A);
    wgmma_commit();
    state.add_product(d_o, c.q);
    wgmma_commit();
    wgmma_wait<1>();
    pin(x);
    pack_tokens(f, x);
    store_rows<D, 4>(f, room(), b.X + out * kC);
    store_columns<D>(f, room(), t.dv[at.n0] + hv * D + column(), t.dv.stride, at.C, t.add_dv);
    scale_tokens(x, by.k);
#pragma unroll
    for (int i = 0; i < 32; ++i) x[i] = -x[i];
    pack_tokens(f, x);
    wgmma_begin();
    state.add_product(f, c.k);
    wgmma_commit();
    wgmma_wait<0>();
    state.pin();
    release(s.empty[turn.stage]);
    state.pack_steps(a);
  }
};

template <int D>
__global__ void __launch_bounds__(kScanThreads, 1)
    scan_backward_kernel(const __grid_constant__ Maps maps, Tensors t, Memory m, BackwardMemory b) {
  extern __shared__ __align__(1024) char memory[];
  Shared<D>& s = *reinterpret_cast<Shared<D>*>(memory);
  const int v0 = int(blockIdx.x) % (D / kColumns) * kColumns;
  const int64_t head = blockIdx.x / (D / kColumns);
  const int hv = int(head % t.HV), document = int(head / t.HV);
  const int begin = m.first[document], end = m.first[document + 1];
  init_barriers(s);
  if (warp_index() == kConsumers / 32) {
    if (threadIdx.x == kConsumers)
      for (int chunk = end - 1; chunk >= begin; --chunk)
        fetch(s, maps, m, m.chunk[chunk], int64_t(chunk) * t.HV + hv, hv / (t.HV / t.H),
              hv * D + v0, Turn(end - 1 - chunk));
    return;
  }
  Scan<D> scan{t, m, b, s, hv, v0, {}, {}};
  const int64_t at_state = head * D * D + v0;
  scan.state.load(t.dfinal ? t.dfinal + at_state : nullptr);
  scan.state.pack_steps(scan.a);
  for (int chunk = end - 1; chunk >= begin; --chunk) scan.step(chunk, Turn(end - 1 - chunk));
  if (t.dinitial) scan.state.store(t.dinitial + at_state, t.add_dinitial);
}

template <int D>
void scan_backward(const Context& ctx, const GdnBackward& a, const gdn::Sizes& s, const Memory& m,
                   const BackwardMemory& b) {
  const Tensors t{rows_of(a.dv.t),
                  a.dv.add,
                  a.dfinal_state ? a.dfinal_state.as<float>() : nullptr,
                  a.dinitial_state ? a.dinitial_state.t.as<float>() : nullptr,
                  a.dinitial_state.add,
                  int(s.H),
                  int(s.HV)};
  const Maps maps{map_of(a.q), map_of(a.k), map_of(a.d_o)};
  allow_shared(scan_backward_kernel<D>, sizeof(Shared<D>));
  scan_backward_kernel<D><<<unsigned(s.documents * s.HV * (D / kColumns)), kScanThreads,
                            sizeof(Shared<D>), ctx.stream>>>(maps, t, m, b);
  SLUICE_LAUNCHED(ctx.stream);
}

}  // namespace

void scan_backward(const Context& ctx, const GdnBackward& a, const gdn::Sizes& s, const Memory& m,
                   const BackwardMemory& b) {
  if (s.K == 64)
    scan_backward<64>(ctx, a, s, m, b);
  else
    scan_backward<128>(ctx, a, s, m, b);
}

}  // namespace sluice::cuda::gdn_gpu
