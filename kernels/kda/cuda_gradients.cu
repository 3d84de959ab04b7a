// kernels/kda/cuda_gradients.cu -- from dO, X, E and the states around each chunk to the gradients
// of the inputs, chunks in parallel.
//
// A CTA has a chunk of one query head and goes through the value heads that share it. README.md has
// the formulas; the letters are its. A warp's part of a, r and c [64, D] is 16 rows and a quarter
// of the channels, so that sums over the block of rows (anchors and exponents as in
// cuda_prepare.cu) are warp-wide products.
#include "kernels/kda/cuda_gradients.cuh"
#include "kernels/kda/cuda_ops.h"

namespace sluice::cuda::kda_gpu {

namespace {

// One token and channel: dy of the gate's logit z; dA gets its part of dA_log.
__device__ inline float logit_gradient(const Gate& gate, float A, float z, float dg, float& dA) {
  const float g = log_decay(gate, A, z);
  if (g < -104) return 0;  // e^g is 0 in f32: what the sum in dg holds there is rounding
  if (gate.bounded) {
    const float p = sigmoid(A * z), dz = dg * gate.lower_bound * p * (1 - p);
    dA += dz == 0 ? 0 : dz * A * z;  // not 0 * infinity
    return A * dz;
  }
  dA += dg * g;
  return -A * sigmoid(z) * dg;
}

// dg = the reverse sum of dG; through the gate; parts of its parameters' gradients. A thread a
// channel and 16 rows: first what the rows after them sum to.
template <int D>
__device__ void gate_backward(const Gradients& t, ChunkAt at, int hv, Shared<D>& s, float* part) {
  const int d = threadIdx.x % D, I = threadIdx.x / D, warp = threadIdx.x / 32;
  float* block = s.total;                             // [4, D]; the decays are no longer needed
  float *dbias_parts = s.G, *dA_parts = s.G + 4 * D;  // [4, D], a number a warp
  const float A = __expf(t.gate.A_log[hv]), bias = t.gate.bias[hv * D + d];
  float dG[16], logits[16], dbias = 0, dA = 0, dg = 0;
  if (I < 4) {
#pragma unroll
    for (int r = 0; r < 16; ++r) {
      const int i = I * 16 + r;
      logits[r] = __bfloat162float(t.g[at.n0 + min(i, at.C - 1)][hv * D + d]) + bias;
      dG[r] = s.out.dG[i * Decay<D>::kPitch + d];
      dg += dG[r];
    }
    block[I * D + d] = dg;
  }
  __syncthreads();
  if (I < 4) {
    dg = s.last[d];
    for (int J = 0; J < 4; ++J) dg += s.last_parts[J * D + d];
    for (int J = 3; J > I; --J) dg += block[J * D + d];
#pragma unroll
    for (int r = 15; r >= 0; --r) {
      dg += dG[r];
      if (I * 16 + r >= at.C) continue;
      const float dy = logit_gradient(t.gate, A, logits[r], dg, dA);
      dbias += dy;
      bf16& out = t.dg[at.n0 + I * 16 + r][hv * D + d];
      out = __float2bfloat16(t.add_dg ? __bfloat162float(out) + dy : dy);
    }
    dbias_parts[I * D + d] = dbias;
    dA = warp_sum(dA);
    if (threadIdx.x % 32 == 0) dA_parts[warp] = dA;
  }
  __syncthreads();
  if (threadIdx.x > D) return;
  float sum = 0;
  if (threadIdx.x < D)
    for (int J = 0; J < 4; ++J) sum += dbias_parts[J * D + threadIdx.x];
  else
    for (int w = 0; w < 4 * D / 32; ++w) sum += dA_parts[w];
  part[threadIdx.x] = sum;
}

// dx = r (dxn - xn (xn . dxn)), xn = r x: one row, by a warp. dxn lies in shared memory.
template <int D>
__device__ void norm_backward(const bf16* x, float r, const float* dxn, float scale, bf16* out,
                              int add) {
  float along = 0;
  for (int d = threadIdx.x % 32; d < D; d += 32) along += __bfloat162float(x[d]) * dxn[d];
  along = warp_sum(along) * r * r;
  for (int d = threadIdx.x % 32; d < D; d += 32) {
    const float dx = scale * r * (dxn[d] - __bfloat162float(x[d]) * along);
    out[d] = __float2bfloat16(add ? __bfloat162float(out[d]) + dx : dx);
  }
}

// Rows of dbeta and, once all value heads are in, dq and dk: a warp a row.
template <int D>
__device__ void row_gradients(const Gradients& t, ChunkAt at, int h, int hv, bool last,
                              const Shared<D>& s) {
  const float scale = rsqrtf(float(D));
  for (int i = threadIdx.x / 32; i < at.C; i += kGradientThreads / 32) {
    const int64_t n = at.n0 + i;
    if (threadIdx.x % 32 == 0) {
      const float b = s.beta[i],
                  x = (s.dbeta[i] + s.dbeta[kC + i] + s.dbeta[2 * kC + i] + s.dbeta[3 * kC + i]) *
                      b * (1 - b / t.gate.beta_max);
      bf16& out = t.dbeta[n][hv];
      out = __float2bfloat16(t.add_dbeta ? __bfloat162float(out) + x : x);
    }
    if (!last) continue;
    norm_backward<D>(s.q_raw + i * Shared<D>::kPitch, s.q_norm[i] / scale,
                     s.out.dq + i * Decay<D>::kPitch, scale, t.dq[n] + h * D, t.add_dq);
    norm_backward<D>(s.k_raw + i * Shared<D>::kPitch, s.k_norm[i], s.out.dk + i * Decay<D>::kPitch,
                     1, t.dk[n] + h * D, t.add_dk);
  }
}

template <int D>
__device__ void value_head(const Gradients& t, const Memory& m, const BackwardMemory& b, ChunkAt at,
                           int64_t chunk, int h, int hv, Shared<D>& s) {
  const int64_t unit = chunk * t.HV + hv;
  const int group = t.HV / t.H;
  const Decay<D> decay{s.G, s.total};
  load_states(t, m, b, at, unit, hv, s);
  if (threadIdx.x < 4) s.unsafe[threadIdx.x] = 0;
  load_norms<D, kGradientThreads>(t.q, t.k, t.beta, t.gate, at, h, hv, s.q_norm, s.k_norm, s.beta);
  load_raw(t, at, h, s);
  __syncthreads();
  load_decay<D, kGradientThreads>(t.g, t.gate, at, hv, decay, s.unsafe);
  wait_for_copies();
  __syncthreads();
  Sums<D> sums{};
  load_across(s, decay);
  through_states(sums, s);
  __syncthreads();
  through_decay(sums, s, decay, m.gamma + unit * D);
  __syncthreads();
  make_factors(s, decay);
  __syncthreads();
  squares(sums, s, decay);
  triangles(sums, s, decay);
  __syncthreads();
  float* shared_keys = group > 1 ? b.keys + (chunk * t.H + h) * 2 * kC * D : nullptr;
  store_sums(sums, s, shared_keys, hv % group == 0, hv % group == group - 1);
  __syncthreads();
  row_gradients(t, at, h, hv, hv % group == group - 1, s);
  gate_backward(t, at, hv, s, b.parts + unit * kParts<D>);
  __syncthreads();
}

template <int D>
__global__ void __launch_bounds__(kGradientThreads, 1)
    gradients_kernel(Gradients t, Memory m, BackwardMemory b) {
  extern __shared__ __align__(16) char memory[];
  Shared<D>& s = *reinterpret_cast<Shared<D>*>(memory);
  const ChunkAt at = m.chunk[blockIdx.y];
  if (at.C == 0) return;
  const int h = blockIdx.x, group = t.HV / t.H;
  for (int hv = h * group; hv < (h + 1) * group; ++hv)
    value_head<D>(t, m, b, at, blockIdx.y, h, hv, s);
}

constexpr int kSlices = 8;

// ddt_bias [HV, D] and dA_log [HV]: sums over chunks, slices of them first. A thread a column and
// slice; column D is dA_log.
template <int D>
__global__ void __launch_bounds__(32 * kSlices)
    sum_parts_kernel(const float* parts, const int* chunks, int HV, float* dbias, int add_dbias,
                     float* dA, int add_dA) {
  __shared__ float slices[kSlices][32];
  const int hv = blockIdx.y, column = blockIdx.x * 32 + threadIdx.x;
  const int count = chunks ? *chunks : 0;
  float sum = 0;
  if (column <= D)
    for (int c = threadIdx.y; c < count; c += kSlices)
      sum += parts[(int64_t(c) * HV + hv) * kParts<D> + column];
  slices[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || column > D) return;
  for (int s = 1; s < kSlices; ++s) sum += slices[s][threadIdx.x];
  float& out = column < D ? dbias[hv * D + column] : dA[hv];
  out = (column < D ? add_dbias : add_dA) ? out + sum : sum;
}

template <int D>
void gradients(const Context& ctx, const KdaBackward& a, const kda::Sizes& s, const Memory& m,
               const BackwardMemory& b) {
  const Gradients t{.q = rows(a.q),
                    .k = rows(a.k),
                    .g = rows(a.g),
                    .beta = rows(a.beta),
                    .d_o = rows(a.d_o),
                    .dq = rows(a.dq.t),
                    .dk = rows(a.dk.t),
                    .dg = rows(a.dg.t),
                    .dbeta = rows(a.dbeta.t),
                    .add_dq = a.dq.add,
                    .add_dk = a.dk.add,
                    .add_dg = a.dg.add,
                    .add_dbeta = a.dbeta.add,
                    .gate = gate_of(a),
                    .H = int(s.H),
                    .HV = int(s.HV)};
  if (s.chunks() > 0) {
    allow_shared(gradients_kernel<D>, sizeof(Shared<D>));
    gradients_kernel<D><<<dim3(unsigned(s.H), unsigned(s.chunks())), kGradientThreads,
                          sizeof(Shared<D>), ctx.stream>>>(t, m, b);
    SLUICE_LAUNCHED(ctx.stream);
  }
  sum_parts_kernel<D><<<dim3(D / 32 + 1, unsigned(s.HV)), dim3(32, kSlices), 0, ctx.stream>>>(
      b.parts, s.documents ? m.first + s.documents : nullptr, int(s.HV), a.ddt_bias.t.as<float>(),
      a.ddt_bias.add, a.dA_log.t.as<float>(), a.dA_log.add);
  SLUICE_LAUNCHED(ctx.stream);
}

}  // namespace

void gradients(const Context& ctx, const KdaBackward& a, const kda::Sizes& s, const Memory& m,
               const BackwardMemory& b) {
  if (s.K == 64)
    gradients<64>(ctx, a, s, m, b);
  else
    gradients<128>(ctx, a, s, m, b);
}

}  // namespace sluice::cuda::kda_gpu
