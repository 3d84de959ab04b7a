// kernels/kda/cuda_scan_backward.cu -- the state's gradient through a document's chunks, last to
// first.
//
//   dE = P^T dO + K- D     X = (I + L)^-T dE = dV     D before = gamma D + Q+^T dO - K+^T X
//
// cuda_state.cuh has how a CTA holds it.
#include "kernels/kda/cuda_ops.h"
#include "kernels/kda/cuda_state.cuh"

namespace sluice::cuda::kda_gpu {

namespace {

// One chunk's operands come in parts, each with its own pair of barriers, in the order of use.
enum Part { kOutput, kErrors, kQueries, kInverse, kReaders, kPartCount };

template <int D>
struct Stage {
  bf16 k_minus[kC * D], P[kC * kC];  // kErrors
  bf16 q_plus[kC * D];               // kQueries, with gamma
  bf16 A[kC * kC];                   // kInverse
  bf16 k_plus[kC * D];               // kReaders
};

template <int D>
struct Shared {
  Stage<D> stage[kStages];  // tiles: at multiples of 1024 bytes
  bf16 out[4][D * kOutPitch];
  bf16 d_o[kStages][kC * kVRows];  // kOutput
  float gamma[kStages][D];
  Barrier full[kStages][kPartCount], empty[kStages][kPartCount];
};

struct Tensors {
  Rows d_o, dv;
  int add_dv;
  const float* dfinal;  // [documents, HV, D, D], or null
  float* dinitial;      // likewise
  int add_dinitial, HV;
};

// By one warp.
template <int D>
__device__ void fetch(const Tensors& t, const Memory& m, Shared<D>& s, int begin, int end, int hv,
                      int v0) {
  for (int chunk = end - 1; chunk >= begin; --chunk) {
    const Turn turn(end - 1 - chunk);
    const int64_t unit = int64_t(chunk) * t.HV + hv;
    Barrier *full = s.full[turn.stage], *empty = s.empty[turn.stage];
    empty[kOutput].wait(turn.parity ^ 1);
    fetch_columns(s.d_o[turn.stage], t.d_o, m.chunk[chunk], hv * D + v0);
    full[kOutput].arrive_after_copies();
    if (threadIdx.x % 32 == 0) {
      Stage<D>& to = s.stage[turn.stage];
      constexpr int kWide = sizeof(to.k_minus), kSquare = sizeof(to.P);
      const auto start = [&](Part part, int bytes) {
        empty[part].wait(turn.parity ^ 1);
        full[part].arrive_expecting(bytes);
      };
      start(kErrors, kWide + kSquare);
      bulk_copy(to.P, m.P + unit * kC * kC, kSquare, full[kErrors]);
      bulk_copy(to.k_minus, m.k_minus + unit * kC * D, kWide, full[kErrors]);
      start(kQueries, kWide + D * 4);
      bulk_copy(s.gamma[turn.stage], m.gamma + unit * D, D * 4, full[kQueries]);
      bulk_copy(to.q_plus, m.q_plus + unit * kC * D, kWide, full[kQueries]);
      start(kInverse, kSquare);
      bulk_copy(to.A, m.A + unit * kC * kC, kSquare, full[kInverse]);
      start(kReaders, kWide);
      bulk_copy(to.k_plus, m.k_plus + unit * kC * D, kWide, full[kReaders]);
    }
    __syncwarp();
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

  __device__ bf16* room() { return s.out[threadIdx.x / 32]; }
  __device__ int column() { return v0 + int(threadIdx.x) / 32 * 16; }

  // dE; the state leaves for memory meanwhile, and becomes gamma D + Q+^T dO.
  __device__ void read(int64_t unit, Turn turn, float (&e)[32]) {
    Barrier *full = s.full[turn.stage], *empty = s.empty[turn.stage];
    const Stage<D>& c = s.stage[turn.stage];
    uint32_t d_o[4][4];
    full[kOutput].wait(turn.parity);
    load_transposed(d_o, s.d_o[turn.stage]);
    release(empty[kOutput]);
    full[kErrors].wait(turn.parity);
    const uint64_t P = tile_descriptor(c.P), k_minus = tile_descriptor(c.k_minus);
    wgmma_begin();
#pragma unroll
    for (int x = 0; x < 4; ++x) wgmma<1, true>(e, d_o[x], rows_at(P, x), x > 0);
#pragma unroll
    for (int x = 0; x < kSteps; ++x) wgmma<1, false>(e, a[x], columns_at(k_minus, x));
    wgmma_commit();
    full[kQueries].wait(turn.parity);
    state.decay(s.gamma[turn.stage]);
    wgmma_begin();
    state.template add_product<1>(d_o, c.q_plus);
    wgmma_commit();
    store_transposed(a, room(), b.D + unit * D * D + column(), D, D);
    wgmma_wait<1>();
    pin(e);
    release(empty[kErrors]);
  }

  // dV is X, unless it is added to: then X has a place of its own. f: x, rounded.
  __device__ void store_x(const float (&x)[32], const uint32_t (&f)[4][4], int64_t unit,
                          ChunkAt at) {
    if (!t.add_dv)
      return store_transposed(f, room(), t.dv[at.n0] + hv * D + column(), t.dv.stride, at.C);
    store_transposed(f, room(), b.X + unit * kC * D + column(), D, kC);
#pragma unroll
    for (int e = 0; e < 32; ++e) {
      const int i = State<D>::row(0, e);
      if (i >= at.C) continue;
      bf16& to = t.dv[at.n0 + i][hv * D + v0 + State<D>::column(e)];
      to = __float2bfloat16(__bfloat162float(to) + x[e]);
    }
  }

  __device__ void step(int chunk, Turn turn) {
    Barrier *full = s.full[turn.stage], *empty = s.empty[turn.stage];
    const Stage<D>& c = s.stage[turn.stage];
    const int64_t unit = int64_t(chunk) * t.HV + hv;
    uint32_t f[4][4];
    float e[32], x[32];
    read(unit, turn, e);
#pragma unroll
    for (int i = 0; i < 4; ++i) pack_step(f[i], e, i);
    full[kInverse].wait(turn.parity);
    const uint64_t A = tile_descriptor(c.A);
    wgmma_begin();
#pragma unroll
    for (int i = 0; i < 4; ++i) wgmma<1, true>(x, f[i], rows_at(A, i), i > 0);
    wgmma_commit();
    wgmma_wait<0>();
    pin(x), state.pin();
    release(empty[kQueries]), release(empty[kInverse]);
#pragma unroll
    for (int i = 0; i < 4; ++i) pack_step(f[i], x, i);
    full[kReaders].wait(turn.parity);
    wgmma_begin();
    state.template add_product<-1>(f, c.k_plus);
    wgmma_commit();
    store_x(x, f, unit, m.chunk[chunk]);
    wgmma_wait<0>();
    state.pin();
    release(empty[kReaders]);
    state.pack_steps(a);
  }
};

template <int D>
__global__ void __launch_bounds__(kScanThreads, 1)
    scan_backward_kernel(Tensors t, Memory m, BackwardMemory b) {
  extern __shared__ __align__(1024) char memory[];
  Shared<D>& s = *reinterpret_cast<Shared<D>*>(memory);
  const int v0 = blockIdx.x * kColumns, hv = blockIdx.y, document = blockIdx.z;
  const int begin = m.first[document], end = m.first[document + 1];
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i)
      for (int part = 0; part < kPartCount; ++part) {
        s.full[i][part].init(part == kOutput ? 32 : 1);
        s.empty[i][part].init(kConsumers / 32);
      }
    publish_barriers();
  }
  __syncthreads();
  if (warp_index() >= kConsumers / 32) return fetch(t, m, s, begin, end, hv, v0);
  Scan<D> scan{t, m, b, s, hv, v0, {}, {}};
  const int64_t at_state = (int64_t(document) * t.HV + hv) * D * D + v0;
  scan.state.load(t.dfinal ? t.dfinal + at_state : nullptr);
  scan.state.pack_steps(scan.a);
  for (int chunk = end - 1; chunk >= begin; --chunk) scan.step(chunk, Turn(end - 1 - chunk));
  if (t.dinitial) scan.state.store(t.dinitial + at_state, t.add_dinitial);
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
  scan_backward_kernel<D><<<dim3(D / kColumns, unsigned(s.HV), unsigned(s.documents)), kScanThreads,
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
