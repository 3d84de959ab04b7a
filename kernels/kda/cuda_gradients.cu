// kernels/kda/cuda_gradients.cu -- from dO, X, E and the states around each chunk to the gradients
// of the inputs, chunks in parallel.
//
// A CTA has a chunk of one query head, goes through the value heads that share it and on to another
// chunk, whose matrices arrive while it works on what is left of this one. README.md has the
// formulas; the letters are its.
#include <algorithm>

#include "kernels/kda/cuda_gradients_gate.cuh"
#include "kernels/kda/cuda_gradients_products.cuh"
#include "kernels/kda/cuda_gradients_rows.cuh"
#include "kernels/kda/cuda_ops.h"

namespace sluice::cuda::kda_gpu {

namespace {

// The CTA's n-th unit; C is 0 when there are no more.
__device__ Unit unit_at(const Gradients& t, const Memory& m, int n) {
  const int group = t.HV / t.H;
  const int64_t item = blockIdx.x + int64_t(n / group) * gridDim.x;
  const int64_t chunk = item / t.H;
  const int h = int(item % t.H);
  return {chunk < t.chunks ? m.chunk[chunk] : ChunkAt{0, 0}, chunk, h, h * group + n % group};
}

// From the factors to a', r', c' in sum, which become dq, dk and dG.
template <int D>
__device__ void sums_of_unit(const Gradients& t, const Unit& u, Shared<D>& s, Sums<D>& sum,
                             float* of_group) {
  decay_states(sum, s);
  squares(sum, s);
  const bool unsafe = s.unsafe[sum.block()];
  if (!unsafe) triangles(sum, s);
  float k_c[2];
  combine(sum, s, k_c);
  if (unsafe) {
    exact_triangle(u, sum, s, k_c);
    __syncwarp();  // exponents are read before dG takes their place
  }
  const int group = t.HV / t.H, member = u.hv % group;
  if (group > 1) add_group(sum, of_group, member == 0, member == group - 1);
  store_sums(sum, s, k_c);
}

// What is left once all sums are in memory. Copies for the next unit start as places fall free.
template <int D>
__device__ void finish(const Gradients& t, const Unit& u, const Unit& next, const Memory& m,
                       const BackwardMemory& b, const Parameters<D>& p, const Sums<D>& sum,
                       Shared<D>& s) {
  const int group = t.HV / t.H;
  const bool last = u.hv % group == group - 1, more = next.at.C != 0;
  if (more) load_keys(t, next, s);
  uint32_t logits[8];
  load_logits<D>(t, u, logits);
  if (threadIdx.x < 4) s.unsafe[threadIdx.x] = 0;
  store_beta(t, u, s);
  sum_halves(s);
  if (last) {
    norm_backward<D>(sum.a, s.X, s.q_dq, s.q_norm, D, t.dq, t.add_dq, u);
    norm_backward<D>(sum.r, s.E, s.k_dk, s.k_norm, 1, t.dk, t.add_dk, u);
  }
  __syncthreads();
  if (last) store_rows<D>(s.X, t.dq, u), store_rows<D>(s.E, t.dk, u);
  if (t.gate.bounded)
    gate_backward<D, true>(t, u, p, logits, s);
  else
    gate_backward<D, false>(t, u, p, logits, s);
  __syncthreads();
  if (more) load_errors(t, m, b, next, s);
  store_parts(s, b.parts + (u.chunk * t.HV + u.hv) * kParts<D>);
}

template <int D>
__global__ void __launch_bounds__(Shared<D>::kThreads, 128 / D)
    gradients_kernel(Gradients t, Memory m, BackwardMemory b) {
  extern __shared__ __align__(16) char memory[];
  Shared<D>& s = *reinterpret_cast<Shared<D>*>(memory);
  Unit u = unit_at(t, m, 0);
  if (u.at.C == 0) return;
  load_states(t, m, b, u, s);
  load_errors(t, m, b, u, s);
  load_keys(t, u, s);
  if (threadIdx.x < 4) s.unsafe[threadIdx.x] = 0;
#pragma unroll 1
  for (int n = 1; u.at.C != 0; ++n) {
    const Unit next = unit_at(t, m, n);
    const Parameters<D> p(t, u);
    wait_for_copies();
    __syncthreads();
    norms(t, u, p, s);
    if (t.gate.bounded)
      exponents<D, true>(t, u, p, s);
    else
      exponents<D, false>(t, u, p, s);
    __syncthreads();
    decays_of_blocks(s);
    Sums<D> sum{};
    last_of_states(s);
    through_states(sum, s);
    __syncthreads();
    if (next.at.C != 0) load_states(t, m, b, next, s);
    factors(s);
    __syncthreads();
    sums_of_unit(t, u, s, sum, b.keys + (u.chunk * t.H + u.h) * 2 * kC * D);
    __syncthreads();
    finish(t, u, next, m, b, p, sum, s);
    u = next;
  }
}

int multiprocessors() {
  int device = 0, count = 0;
  SLUICE_CUDA(cudaGetDevice(&device));
  SLUICE_CUDA(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device));
  return count;
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
                    .dv = rows(a.dv.t),
                    .dq = rows(a.dq.t),
                    .dk = rows(a.dk.t),
                    .dg = rows(a.dg.t),
                    .dbeta = rows(a.dbeta.t),
                    .add_dq = a.dq.add,
                    .add_dk = a.dk.add,
                    .add_dg = a.dg.add,
                    .add_dbeta = a.dbeta.add,
                    .add_dv = a.dv.add,
                    .gate = gate_of(a),
                    .H = int(s.H),
                    .HV = int(s.HV),
                    .chunks = int(s.chunks())};
  if (s.chunks() > 0) {
    allow_shared(gradients_kernel<D>, sizeof(Shared<D>));
    const int64_t ctas = std::min<int64_t>(s.chunks() * s.H, multiprocessors());
    gradients_kernel<D>
        <<<unsigned(ctas), Shared<D>::kThreads, sizeof(Shared<D>), ctx.stream>>>(t, m, b);
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
