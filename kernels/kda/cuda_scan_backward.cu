// kernels/kda/cuda_scan_backward.cu -- the state's gradient through a document's chunks, last to
// first.
//
//   X = R^T dO + W D = dV     D before = gamma D + Q+^T dO - K+^T X
//
// cuda_state.cuh has how a CTA holds it.
#include "kernels/kda/cuda_ops.h"
#include "kernels/kda/cuda_state.cuh"

namespace sluice::cuda::kda_gpu {

namespace {

// One chunk's operands come in parts, each with its own pair of barriers, in the order of use.
enum Part { kOutput, kWrite, kQueries, kReaders, kPartCount };

template <int D>
struct Stage {
  bf16 W[kC * D], R[kC * kC];  // kWrite
  bf16 q_plus[kC * D];         // kQueries, with gamma
  bf16 k_plus[kC * D];         // kReaders
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
      constexpr int kWide = sizeof(to.W), kSquare = sizeof(to.R);
      const auto start = [&](Part part, int bytes) {
        empty[part].wait(turn.parity ^ 1);
        full[part].arrive_expecting(bytes);
      };
      start(kWrite, kWide + kSquare);
      bulk_copy(to.R, m.R + unit * kC * kC, kSquare, full[kWrite]);
      bulk_copy(to.W, m.W + unit * kC * D, kWide, full[kWrite]);
      start(kQueries, kWide + D * 4);
      bulk_copy(s.gamma[turn.stage], m.gamma + unit * D, D * 4, full[kQueries]);
      bulk_copy(to.q_plus, m.q_plus + unit * kC * D, kWide, full[kQueries]);
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

  // X; the state leaves for memory meanwhile, and becomes gamma D + Q+^T dO.
  __device__ void read(int64_t unit, Turn turn, float (&x)[32]) {
    Barrier *full = s.full[turn.stage], *empty = s.empty[turn.stage];
    const Stage<D>& c = s.stage[turn.stage];
    uint32_t d_o[4][4];
    full[kOutput].wait(turn.parity);
    load_transposed(d_o, s.d_o[turn.stage]);
    release(empty[kOutput]);
    full[kWrite].wait(turn.parity);
    wgmma_wait<0>();  // of none: else ptxas has the decay wait for what follows
    state.pin();
    const uint64_t R = tile_descriptor(c.R), W = tile_descriptor(c.W);
    wgmma_begin();
#pragma unroll
    for (int i = 0; i < 4; ++i) wgmma<1, true>(x, d_o[i], rows_at(R, i), i > 0);
#pragma unroll
    for (int i = 0; i < kSteps; ++i) wgmma<1, false>(x, a[i], columns_at(W, i));
    wgmma_commit();
    full[kQueries].wait(turn.parity);
    state.decay(s.gamma[turn.stage]);
    wgmma_begin();
    state.template add_product<1>(d_o, c.q_plus);
    wgmma_commit();
    store_transposed(a, room(), b.D + unit * D * D + column(), D, D);
    wgmma_wait<1>();
    pin(x);
    release(empty[kWrite]);
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
    float x[32];
    read(unit, turn, x);
#pragma unroll
    for (int i = 0; i < 4; ++i) pack_step(f[i], x, i);
    wgmma_wait<0>();
    state.pin();
    release(empty[kQueries]);
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
