// kernels/gdn/cuda_scan.cu -- the state through a document's chunks, first to last.
//
//   Y = V - e^G K S      E = (I + L)^-1 Y      O = e^G Q S + P E      S' = gamma S + K^T (w E)
//
// A CTA has kVTile columns of one value head's state, in f32 accumulators. The next chunk's
// operands come in while this one is computed.
#include "kernels/gdn/cuda_ops.h"
#include "kernels/gdn/cuda_stage.cuh"

namespace sluice::cuda::gdn_gpu {

namespace {

struct Tensors {
  Inputs in;
  Rows o;
  const float* initial;  // [documents, HV, D, D], or null
  float* final;          // likewise
};

template <int D>
struct Shared {
  Stage<D> stage[2];
  bf16 S[kPairs][16 * kRowPitch<D>];   // the state that entered the chunk, rounded
  bf16 E[kPairs][16 * kRowPitch<kC>];  // its errors
};
enum { kStateWritten, kErrorsWritten };

// One warp of a pair: E, and S' in its registers.
template <int D>
__device__ void take_state(const Stage<D>& c, Shared<D>& shared, Sum<D / 8>& state) {
  Operand<4> v, e;
  Sum<8> y = {}, errors = {};
  {
    Operand<D / 16> s;
    as_operand(s, state);
    put_rows(shared.S[pair()], s);
    tell(kStateWritten);
    add_read(y, s, c.k, Stage<D>::kPitch);
  }
  scale_columns(y, c.factors.k);
  load_columns(v, c.v);
#pragma unroll
  for (int n = 0; n < 8; ++n) {
    const float2 upper = unpack(v[n / 2][n % 2 * 2]), lower = unpack(v[n / 2][n % 2 * 2 + 1]);
    y[n][0] = upper.x - y[n][0], y[n][1] = upper.y - y[n][1];
    y[n][2] = lower.x - y[n][2], y[n][3] = lower.y - y[n][3];
  }
  as_operand(v, y);
  add_lower_transposed(errors, v, c.A);
  as_operand(e, errors);
  put_rows(shared.E[pair()], e);
  tell(kErrorsWritten);

  scale_columns(errors, c.factors.w);
  as_operand(e, errors);
  const float gamma = c.factors.gamma;
#pragma unroll
  for (int n = 0; n < D / 8; ++n)
#pragma unroll
    for (int x = 0; x < 4; ++x) state[n][x] *= gamma;
  add_write(state, e, c.k, Stage<D>::kPitch);
}

// The other: O, and what backward needs. O goes where V was in the chunk's stage.
template <int D>
__device__ void make_output(const Tensors& t, const Memory& m, Stage<D>& c, const Shared<D>& shared,
                            ChunkAt at, int64_t unit, int hv, int column, bool keeps) {
  Operand<4> e;
  Sum<8> o = {};
  wait_for(kStateWritten);
  {
    Operand<D / 16> s;
    get_rows(s, shared.S[pair()]);
    add_read(o, s, c.q, Stage<D>::kPitch);
  }
  if (keeps) store_rows<D>(m.S + (unit * D + column) * D, shared.S[pair()]);
  scale_columns(o, c.factors.q);
  wait_for(kErrorsWritten);
  get_rows(e, shared.E[pair()]);
  add_lower_transposed(o, e, c.P);
  if (keeps) store_rows<kC>(m.E + (unit * D + column) * kC, shared.E[pair()]);
  as_operand(e, o);
  store_columns(e, c.v);
  for (int x = int(threadIdx.x) % 32; x < at.C * 2; x += 32)
    *reinterpret_cast<uint4*>(t.o[at.n0 + x / 2] + hv * D + column + x % 2 * 8) =
        *reinterpret_cast<const uint4*>(c.v + x / 2 * kVPitch + warp_column() + x % 2 * 8);
}

template <int D>
__global__ void __launch_bounds__(kThreads) scan_kernel(Tensors t, Memory m, int keeps) {
  extern __shared__ __align__(16) char memory[];
  Shared<D>& shared = *reinterpret_cast<Shared<D>*>(memory);
  const int tile = int(blockIdx.x % (D / kVTile)), h_of = t.in.HV / t.in.H;
  const int64_t head = blockIdx.x / (D / kVTile);
  const int hv = int(head % t.in.HV), document = int(head / t.in.HV), v0 = tile * kVTile;
  const int begin = m.first[document], end = m.first[document + 1];
  const int column = v0 + warp_column();
  const int64_t at_state = head * D * D + column;
  Sum<D / 8> state;
  if (takes_state()) load_state<D>(state, t.initial ? t.initial + at_state : nullptr);
  const auto load = [&](int chunk) {
    load_stage(shared.stage[(chunk - begin) % 2], m, t.in, m.chunk[chunk],
               int64_t(chunk) * t.in.HV + hv, hv / h_of, hv * D + v0);
  };
  if (begin < end) load(begin);
  for (int chunk = begin; chunk < end; ++chunk) {
    Stage<D>& c = shared.stage[(chunk - begin) % 2];
    wait_for_copies();
    __syncthreads();
    if (chunk + 1 < end) load(chunk + 1);
    if (takes_state())
      take_state(c, shared, state);
    else
      make_output(t, m, c, shared, m.chunk[chunk], int64_t(chunk) * t.in.HV + hv, hv, column,
                  keeps);
  }
  if (t.final && takes_state()) store_state<D>(state, t.final + at_state, false);
}

template <int D>
void scan(const Context& ctx, const GdnForward& a, const gdn::Sizes& s, const Memory& m) {
  const Tensors t{{rows_of(a.q), rows_of(a.k), rows_of(a.v), int(s.H), int(s.HV)},
                  rows_of(a.o),
                  a.initial_state ? a.initial_state.as<float>() : nullptr,
                  a.final_state ? a.final_state.as<float>() : nullptr};
  allow_shared(scan_kernel<D>, sizeof(Shared<D>));
  scan_kernel<D>
      <<<unsigned(s.documents * s.HV * (D / kVTile)), kThreads, sizeof(Shared<D>), ctx.stream>>>(
          t, m, bool(a.saved));
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
