// kernels/gdn/cuda_scan.cu -- the state through a document's chunks, first to last.
//
//   Y = V - e^G K S      E = (I + L)^-1 Y      O = e^G Q S + P E      S' = gamma S + K^T (w E)
//
// cuda_stage.cuh has how a CTA holds it.
#include "kernels/gdn/cuda_ops.h"
#include "kernels/gdn/cuda_stage.cuh"

namespace sluice::cuda::gdn_gpu {

namespace {

struct Tensors {
  Rows o;
  const float* initial;  // [documents, HV, D, D], or null
  float* final;          // likewise
  int H, HV, keeps;
};

template <int D>
struct Scan {
  static constexpr int kSteps = D / 16;
  const Tensors& t;
  const Memory& m;
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
    const int64_t unit = int64_t(chunk) * t.HV + hv, out = unit * D + column();
    float e[32], o[32];
    uint32_t f[4][4], v[4][4];
    s.full[turn.stage].wait(turn.parity);
    wgmma_begin();
    product_transposed<kSteps>(e, a, c.k);
    wgmma_commit();
    product_transposed<kSteps>(o, a, c.q);
    wgmma_commit();
    load_columns(v, c.v);
    if (t.keeps) store_rows<D, kSteps>(a, room(), m.S + out * D);
    wgmma_wait<1>();
    pin(e);
    scale_tokens(e, by.k);
#pragma unroll
    for (int x = 0; x < 32; x += 2) {
      const float2 y = unpack(v[x / 8][x / 2 % 4]);
      e[x] = y.x - e[x], e[x + 1] = y.y - e[x + 1];
    }
    pack_tokens(f, e);
    wgmma_begin();
    product_transposed<4>(e, f, c.A);
    wgmma_commit();
    wgmma_wait<0>();
    pin(e), pin(o);
    scale_tokens(o, by.q);
    pack_tokens(f, e);
    scale_tokens(e, by.w);
    pack_tokens(v, e);
    state.scale(by.gamma);
    wgmma_begin();
    product_transposed<4>(o, f, c.P, true);
    wgmma_commit();
    state.add_product(v, c.k);
    wgmma_commit();
    if (t.keeps) store_rows<D, 4>(f, room(), m.E + out * kC);
    wgmma_wait<1>();
    pin(o);
    pack_tokens(f, o);
    store_columns<D>(f, room(), t.o[at.n0] + hv * D + column(), t.o.stride, at.C);
    wgmma_wait<0>();
    state.pin();
    release(s.empty[turn.stage]);
    state.pack_steps(a);
  }
};

template <int D>
__global__ void __launch_bounds__(kScanThreads, 1)
    scan_kernel(const __grid_constant__ Maps maps, Tensors t, Memory m) {
  extern __shared__ __align__(1024) char memory[];
  Shared<D>& s = *reinterpret_cast<Shared<D>*>(memory);
  const int v0 = int(blockIdx.x) % (D / kColumns) * kColumns;
  const int64_t head = blockIdx.x / (D / kColumns);
  const int hv = int(head % t.HV), document = int(head / t.HV);
  const int begin = m.first[document], end = m.first[document + 1];
  init_barriers(s);
  if (warp_index() == kConsumers / 32) {
    if (threadIdx.x == kConsumers)
      for (int chunk = begin; chunk < end; ++chunk)
        fetch(s, maps, m, m.chunk[chunk], int64_t(chunk) * t.HV + hv, hv / (t.HV / t.H),
              hv * D + v0, Turn(chunk - begin));
    return;
  }
  Scan<D> scan{t, m, s, hv, v0, {}, {}};
  const int64_t at_state = head * D * D + v0;
  scan.state.load(t.initial ? t.initial + at_state : nullptr);
  scan.state.pack_steps(scan.a);
  for (int chunk = begin; chunk < end; ++chunk) scan.step(chunk, Turn(chunk - begin));
  if (t.final) scan.state.store(t.final + at_state, false);
}

template <int D>
void scan(const Context& ctx, const GdnForward& a, const gdn::Sizes& s, const Memory& m) {
  const Tensors t{rows_of(a.o),
                  a.initial_state ? a.initial_state.as<float>() : nullptr,
                  a.final_state ? a.final_state.as<float>() : nullptr,
                  int(s.H),
                  int(s.HV),
                  bool(a.saved)};
  const Maps maps{map_of(a.q), map_of(a.k), map_of(a.v)};
  allow_shared(scan_kernel<D>, sizeof(Shared<D>));
  scan_kernel<D><<<unsigned(s.documents * s.HV * (D / kColumns)), kScanThreads, sizeof(Shared<D>),
                   ctx.stream>>>(maps, t, m);
  SLUICE_LAUNCHED(ctx.stream);
}

}  // namespace

void scan(const Context& ctx, const GdnForward& a, const gdn::Sizes& s, const Memory& m) {
  if (s.K == 64)
    scan<64>(ctx, a, s, m);
  else
    scan<128>(ctx, a, s, m);
}

}  // namespace sluice::cuda::gdn_gpu
