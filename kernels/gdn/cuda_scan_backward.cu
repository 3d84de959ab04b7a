// kernels/gdn/cuda_scan_backward.cu -- the state's gradient through a document's chunks, last to
// first.
//
//   dE = P^T dO + w K D      X = (I + L)^-T dE = dV
//   D before = gamma D + Q^T (e^G dO) - K^T (e^G X)
//
// As in cuda_scan.cu a CTA has kVTile columns of one value head.
#include "kernels/gdn/cuda_ops.h"
#include "kernels/gdn/cuda_stage.cuh"

namespace sluice::cuda::gdn_gpu {

namespace {

struct Tensors {
  Inputs in;
  Rows dv;
  int add_dv;
  const float* dfinal;  // [documents, HV, D, D], or null
  float* dinitial;      // likewise
  int add_dinitial;
};

// An operand [16, 64] times a factor a column.
__device__ void scale_operand(Operand<4>& a, const float* by) {
#pragma unroll
  for (int k = 0; k < 4; ++k)
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const float2 f = *reinterpret_cast<const float2*>(by + k * 16 + r / 2 * 8 + tile_column(0));
      const float2 x = unpack(a[k][r]);
      a[k][r] = pack(x.x * f.x, x.y * f.y);
    }
}

template <int D>
struct Shared {
  Stage<D> stage[2];
  // Of the warp with the state: it as it left the chunk, and dV; rounded.
  bf16 D_state[kPairs][16 * kRowPitch<D>], X[kPairs][16 * kRowPitch<kC>];
  // Of the other: dO^T P and (e^G dO)^T Q, as its lanes have them.
  float reads[kPairs][8][32][4], queries[kPairs][D / 8][32][4];
};
enum { kReadsWritten, kQueriesWritten, kErrorsWritten };

template <int tiles>
__device__ void put_sum(float (*to)[32][4], const Sum<tiles>& c) {
#pragma unroll
  for (int n = 0; n < tiles; ++n)
    *reinterpret_cast<float4*>(to[n][threadIdx.x % 32]) = {c[n][0], c[n][1], c[n][2], c[n][3]};
}
// c = by c + what is there.
template <int tiles>
__device__ void get_sum(Sum<tiles>& c, float by, const float (*from)[32][4]) {
#pragma unroll
  for (int n = 0; n < tiles; ++n) {
    const float4 x = *reinterpret_cast<const float4*>(from[n][threadIdx.x % 32]);
    c[n][0] = by * c[n][0] + x.x, c[n][1] = by * c[n][1] + x.y;
    c[n][2] = by * c[n][2] + x.z, c[n][3] = by * c[n][3] + x.w;
  }
}

// One warp of a pair: X, and D of the chunk before in its registers.
template <int D>
__device__ void take_state(const Stage<D>& c, Shared<D>& shared, Sum<D / 8>& state) {
  Operand<4> x;
  Sum<8> e = {}, sum = {};
  {
    Operand<D / 16> d;
    as_operand(d, state);
    put_rows(shared.D_state[pair()], d);
    add_read(e, d, c.k, Stage<D>::kPitch);
  }
  scale_columns(e, c.factors.w);
  wait_for(kReadsWritten);
  get_sum(e, 1, shared.reads[pair()]);
  as_operand(x, e);
  add_lower(sum, x, c.A);
  as_operand(x, sum);
  put_rows(shared.X[pair()], x);
  tell(kErrorsWritten);
  scale_columns(sum, c.factors.k);
#pragma unroll
  for (int n = 0; n < 8; ++n)
#pragma unroll
    for (int r = 0; r < 4; ++r) sum[n][r] = -sum[n][r];
  as_operand(x, sum);
  wait_for(kQueriesWritten);
  get_sum(state, c.factors.gamma, shared.queries[pair()]);
  add_write(state, x, c.k, Stage<D>::kPitch);
}

// The other: what comes from dO alone, then the results. dV goes where dO was in the chunk's stage.
template <int D>
__device__ void make_reads(const Tensors& t, const BackwardMemory& b, Stage<D>& c,
                           Shared<D>& shared, ChunkAt at, int64_t unit, int hv, int column) {
  Operand<4> d_o;
  load_columns(d_o, c.v);
  {
    Sum<8> reads = {};
    add_lower(reads, d_o, c.P);
    put_sum(shared.reads[pair()], reads);
    tell(kReadsWritten);
  }
  {
    Sum<D / 8> queries = {};
    scale_operand(d_o, c.factors.q);
    add_write(queries, d_o, c.q, Stage<D>::kPitch);
    put_sum(shared.queries[pair()], queries);
    tell(kQueriesWritten);
  }
  wait_for(kErrorsWritten);
  store_rows<D>(b.D + (unit * D + column) * D, shared.D_state[pair()]);
  store_rows<kC>(b.X + (unit * D + column) * kC, shared.X[pair()]);
  get_rows(d_o, shared.X[pair()]);
  store_columns(d_o, c.v);
  for (int x = int(threadIdx.x) % 32; x < at.C * 2; x += 32) {
    float dv[8];
    load(dv, c.v + x / 2 * kVPitch + warp_column() + x % 2 * 8);
    put(t.dv[at.n0 + x / 2] + hv * D + column + x % 2 * 8, dv, t.add_dv);
  }
}

template <int D>
__global__ void __launch_bounds__(kThreads)
    scan_backward_kernel(Tensors t, Memory m, BackwardMemory b) {
  extern __shared__ __align__(16) char memory[];
  Shared<D>& shared = *reinterpret_cast<Shared<D>*>(memory);
  const int tile = int(blockIdx.x % (D / kVTile)), group = t.in.HV / t.in.H;
  const int64_t head = blockIdx.x / (D / kVTile);
  const int hv = int(head % t.in.HV), document = int(head / t.in.HV), v0 = tile * kVTile;
  const int begin = m.first[document], end = m.first[document + 1];
  const int column = v0 + warp_column();
  const int64_t at_state = head * D * D + column;
  Sum<D / 8> state;
  if (takes_state()) load_state<D>(state, t.dfinal ? t.dfinal + at_state : nullptr);
  const auto load = [&](int chunk) {
    load_stage(shared.stage[chunk % 2], m, t.in, m.chunk[chunk], int64_t(chunk) * t.in.HV + hv,
               hv / group, hv * D + v0);
  };
  if (begin < end) load(end - 1);
  for (int chunk = end - 1; chunk >= begin; --chunk) {
    Stage<D>& c = shared.stage[chunk % 2];
    wait_for_copies();
    __syncthreads();
    if (chunk > begin) load(chunk - 1);
    if (takes_state())
      take_state(c, shared, state);
    else
      make_reads(t, b, c, shared, m.chunk[chunk], int64_t(chunk) * t.in.HV + hv, hv, column);
  }
  if (t.dinitial && takes_state()) store_state<D>(state, t.dinitial + at_state, t.add_dinitial);
}

template <int D>
void scan_backward(const Context& ctx, const GdnBackward& a, const gdn::Sizes& s, const Memory& m,
                   const BackwardMemory& b) {
  const Tensors t{{rows_of(a.q), rows_of(a.k), rows_of(a.d_o), int(s.H), int(s.HV)},
                  rows_of(a.dv.t),
                  a.dv.add,
                  a.dfinal_state ? a.dfinal_state.as<float>() : nullptr,
                  a.dinitial_state ? a.dinitial_state.t.as<float>() : nullptr,
                  a.dinitial_state.add};
  allow_shared(scan_backward_kernel<D>, sizeof(Shared<D>));
  scan_backward_kernel<D>
      <<<unsigned(s.documents * s.HV * (D / kVTile)), kThreads, sizeof(Shared<D>), ctx.stream>>>(
          t, m, b);
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
