// kernels/kda/cuda_scan.cu -- the state through a document's chunks, first to last.
//
//   Y = V - K+ S      O = Q+ S + R Y      S' = gamma S + W^T Y      E = (I + L)^-1 Y
//
// E is for backward alone.
//
// cuda_state.cuh has how a CTA holds it.
#include "kernels/kda/cuda_ops.h"
#include "kernels/kda/cuda_state.cuh"

namespace sluice::cuda::kda_gpu {

namespace {

// One chunk's operands come in parts, each with its own pair of barriers.
enum Part { kReadKeys, kReadQueries, kWrite, kInverse, kValues, kPartCount };

template <int D>
struct Stage {
  bf16 k_plus[kC * D];         // kReadKeys
  bf16 q_plus[kC * D];         // kReadQueries, with gamma
  bf16 W[kC * D], R[kC * kC];  // kWrite
  bf16 A[kC * kC];             // kInverse, if backward follows
};

template <int D>
struct Shared {
  Stage<D> stage[kStages];  // tiles: at multiples of 1024 bytes
  bf16 out[4][D * kOutPitch];
  bf16 v[kStages][kC * kVRows];
  float gamma[kStages][D];
  Barrier full[kStages][kPartCount], empty[kStages][kPartCount];
};

struct Tensors {
  Rows v, o;
  const float* initial;  // [documents, HV, D, D], or null
  float* final;          // likewise
  int HV, keeps;
};

template <int D>
__device__ void fetch(const Tensors& t, const Memory& m, Shared<D>& s, int begin, int end, int hv,
                      int v0) {
  for (int chunk = begin; chunk < end; ++chunk) {
    const Turn turn(chunk - begin);
    const int64_t unit = int64_t(chunk) * t.HV + hv;
    Barrier *full = s.full[turn.stage], *empty = s.empty[turn.stage];
    empty[kValues].wait(turn.parity ^ 1);
    fetch_columns(s.v[turn.stage], t.v, m.chunk[chunk], hv * D + v0);
    full[kValues].arrive_after_copies();
    if (threadIdx.x % 32 == 0) {
      Stage<D>& to = s.stage[turn.stage];
      const auto start = [&](Part part, int bytes) {
        empty[part].wait(turn.parity ^ 1);
        full[part].arrive_expecting(bytes);
      };
      constexpr int kWide = sizeof(to.k_plus), kSquare = sizeof(to.A);
      start(kReadKeys, kWide);
      bulk_copy(to.k_plus, m.k_plus + unit * kC * D, kWide, full[kReadKeys]);
      start(kReadQueries, kWide + D * 4);
      bulk_copy(to.q_plus, m.q_plus + unit * kC * D, kWide, full[kReadQueries]);
      bulk_copy(s.gamma[turn.stage], m.gamma + unit * D, D * 4, full[kReadQueries]);
      start(kWrite, kWide + kSquare);
      bulk_copy(to.W, m.W + unit * kC * D, kWide, full[kWrite]);
      bulk_copy(to.R, m.R + unit * kC * kC, kSquare, full[kWrite]);
      if (t.keeps) {
        start(kInverse, kSquare);
        bulk_copy(to.A, m.A + unit * kC * kC, kSquare, full[kInverse]);
      }
    }
    __syncwarp();
  }
}

// c = V^T.
__device__ inline void load_values(float (&c)[32], const bf16* v) {
  uint32_t a[4][4];
  load_transposed(a, v);
#pragma unroll
  for (int e = 0; e < 32; e += 2) {
    const float2 x = unpack(a[e / 8][e / 2 % 4]);
    c[e] = x.x, c[e + 1] = x.y;
  }
}

template <int D>
struct Scan {
  static constexpr int kSteps = D / 16;
  const Tensors& t;
  const Memory& m;
  Shared<D>& s;
  int hv, v0;

  State<D> state;
  uint32_t a[kSteps][4];  // the state, rounded
  uint32_t out[4][4];     // O^T of the chunk before, rounded
  float y[32];            // V^T of the next chunk, then Y^T

  __device__ bf16* room() { return s.out[threadIdx.x / 32]; }
  __device__ int column() { return v0 + int(threadIdx.x) / 32 * 16; }

  __device__ void store_o(ChunkAt at) {
    store_transposed(out, room(), t.o[at.n0] + hv * D + column(), t.o.stride, at.C);
  }

  // V^T of a chunk.
  __device__ void start(Turn turn) {
    s.full[turn.stage][kValues].wait(turn.parity);
    load_values(y, s.v[turn.stage]);
    release(s.empty[turn.stage][kValues]);
  }

  // Y and Q+ S from the state, which then decays; O of the chunk before leaves meanwhile.
  __device__ void read(int chunk, Turn turn, ChunkAt before, float (&o)[32]) {
    Barrier *full = s.full[turn.stage], *empty = s.empty[turn.stage];
    const Stage<D>& c = s.stage[turn.stage];
    full[kReadKeys].wait(turn.parity);
    wgmma_wait<0>();  // of none: else ptxas has the decay wait for what follows
    state.pin();
    wgmma_begin();
    const uint64_t k_plus = tile_descriptor(c.k_plus), q_plus = tile_descriptor(c.q_plus);
#pragma unroll
    for (int x = 0; x < kSteps; ++x) wgmma<-1, false>(y, a[x], columns_at(k_plus, x));
    wgmma_commit();
    full[kReadQueries].wait(turn.parity);
    wgmma_begin();
#pragma unroll
    for (int x = 0; x < kSteps; ++x) wgmma<1, false>(o, a[x], columns_at(q_plus, x), x > 0);
    wgmma_commit();
    store_o(before);
    if (t.keeps)
      store_transposed(a, room(), m.S + (int64_t(chunk) * t.HV + hv) * D * D + column(), D, D);
    state.decay(s.gamma[turn.stage]);
    wgmma_wait<1>();
    pin(y);
    release(empty[kReadKeys]);
  }

  // E of the chunk, b being Y.
  __device__ void store_errors(int chunk, Turn turn, const uint32_t (&b)[4][4]) {
    float e[32];
    s.full[turn.stage][kInverse].wait(turn.parity);
    const uint64_t A = tile_descriptor(s.stage[turn.stage].A);
    wgmma_begin();
#pragma unroll
    for (int x = 0; x < 4; ++x) wgmma<1, false>(e, b[x], columns_at(A, x), x > 0);
    wgmma_commit();
    wgmma_wait<0>();
    pin(e);
    release(s.empty[turn.stage][kInverse]);
    uint32_t f[4][4];
#pragma unroll
    for (int x = 0; x < 4; ++x) pack_step(f[x], e, x);
    store_transposed(f, room(), m.E + (int64_t(chunk) * t.HV + hv) * kC * D + column(), D, kC);
  }

  __device__ void step(int chunk, Turn turn, ChunkAt before, bool last) {
    Barrier *full = s.full[turn.stage], *empty = s.empty[turn.stage];
    const Stage<D>& c = s.stage[turn.stage];
    uint32_t b[4][4];
    float o[32];
    read(chunk, turn, before, o);
#pragma unroll
    for (int x = 0; x < 4; ++x) pack_step(b[x], y, x);
    full[kWrite].wait(turn.parity);
    const uint64_t R = tile_descriptor(c.R);
    wgmma_begin();
    state.template add_product<1>(b, c.W);
    wgmma_commit();
#pragma unroll
    for (int x = 0; x < 4; ++x) wgmma<1, false>(o, b[x], columns_at(R, x));
    wgmma_commit();
    if (!last) start(Turn(turn.index + 1));
    wgmma_wait<1>();
    state.pin();
    release(empty[kReadQueries]);
    state.pack_steps(a);
    wgmma_wait<0>();
    pin(o);
#pragma unroll
    for (int x = 0; x < 4; ++x) pack_step(out[x], o, x);
    release(empty[kWrite]);
    if (t.keeps) store_errors(chunk, turn, b);
  }
};

template <int D>
__global__ void __launch_bounds__(kScanThreads, 1) scan_kernel(Tensors t, Memory m) {
  extern __shared__ __align__(1024) char memory[];
  Shared<D>& s = *reinterpret_cast<Shared<D>*>(memory);
  const int v0 = blockIdx.x * kColumns, hv = blockIdx.y, document = blockIdx.z;
  const int begin = m.first[document], end = m.first[document + 1];
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i)
      for (int part = 0; part < kPartCount; ++part) {
        s.full[i][part].init(part == kValues ? 32 : 1);
        s.empty[i][part].init(kConsumers / 32);
      }
    publish_barriers();
  }
  __syncthreads();
  if (warp_index() >= kConsumers / 32) return fetch(t, m, s, begin, end, hv, v0);
  Scan<D> scan{t, m, s, hv, v0, {}, {}, {}, {}};
  const int64_t at_state = (int64_t(document) * t.HV + hv) * D * D + v0;
  scan.state.load(t.initial ? t.initial + at_state : nullptr);
  scan.state.pack_steps(scan.a);
  if (begin < end) scan.start(Turn(0));
  ChunkAt before{0, 0};
  for (int chunk = begin; chunk < end; ++chunk) {
    const ChunkAt at = m.chunk[chunk];
    scan.step(chunk, Turn(chunk - begin), before, chunk + 1 == end);
    before = at;
  }
  scan.store_o(before);
  if (t.final) scan.state.store(t.final + at_state);
}

template <int D>
void scan(const Context& ctx, const KdaForward& a, const kda::Sizes& s, const Memory& m) {
  const Tensors t{rows(a.v),
                  rows(a.o),
                  a.initial_state ? a.initial_state.as<float>() : nullptr,
                  a.final_state ? a.final_state.as<float>() : nullptr,
                  int(s.HV),
                  bool(a.saved)};
  allow_shared(scan_kernel<D>, sizeof(Shared<D>));
  scan_kernel<D><<<dim3(D / kColumns, unsigned(s.HV), unsigned(s.documents)), kScanThreads,
                   sizeof(Shared<D>), ctx.stream>>>(t, m);
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
