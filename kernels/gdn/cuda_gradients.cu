// kernels/gdn/cuda_gradients.cu -- from dO, X, E and the states around each chunk to the gradients
// of the inputs, chunks in parallel.
//
// A CTA has a chunk of one query head and goes through the value heads that share it. README.md has
// the formulas; the letters are its. A warp's part of a, r and c [64, D] is 16 rows and a quarter
// of the channels, of the pairs [64, 64] 16 rows and a quarter of the columns.
#include <algorithm>

#include "kernels/gdn/cuda_gradients.cuh"
#include "kernels/gdn/cuda_ops.h"

namespace sluice::cuda::gdn_gpu {

namespace {

// Sums of a row over the channels: v, a number a tile and element, into parts [4, 64].
__device__ void row_sums(float (&v)[2], float* parts) {
  for (int half = 0; half < 2; ++half) {
    const float sum = warp_sum(v[half], 4);
    if (threadIdx.x % 4 == 0) parts[part() * kC + block() * 16 + tile_row(2 * half)] = sum;
  }
}
__device__ float sum_of_parts(const float* parts, int i) {
  return parts[i] + parts[kC + i] + parts[2 * kC + i] + parts[3 * kC + i];
}

// a, r and c so far get their decay and sign; what they bring to dg, by row.
template <int D>
__device__ void through_decay(Sums<D>& sum, Shared<D>& s, bool delta_rule) {
  const Tokens& t = s.tokens;
  float right[2] = {}, left[2] = {};
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int i = block() * 16 + tile_row(2 * half);
    const float since = t.from_start(i), until = t.to_end(i);
    const float read = delta_rule ? -since : 0;
#pragma unroll
    for (int j = 0; j < Sums<D>::kTiles; ++j) {
      float *a = sum.a[j] + 2 * half, *r = sum.r[j] + 2 * half, *c = sum.c[j] + 2 * half;
      const int d = Sums<D>::channel(j);
      const float2 q = load_pair(s.q + i * Shared<D>::kPitch + d);
      const float2 k = load_pair(s.k + i * Shared<D>::kPitch + d);
      a[0] *= since, a[1] *= since, r[0] *= read, r[1] *= read, c[0] *= until, c[1] *= until;
      right[half] +=
          t.q_norm[i] * (q.x * a[0] + q.y * a[1]) + t.k_norm[i] * (k.x * r[0] + k.y * r[1]);
      left[half] += k.x * c[0] + k.y * c[1];
    }
    left[half] *= t.k_norm[i] * t.b[i];
  }
  row_sums(right, s.right);
  row_sums(left, s.left);
}

// dbeta (or the step's part) needs k . c; dq and dk their dots with q and k.
template <int D, bool grouped>
__device__ void store_keys(const Gradients& t, ChunkAt at, int h, const Sums<D>& sum,
                           float (&dq)[Sums<D>::kTiles][4], float (&dk)[Sums<D>::kTiles][4],
                           Shared<D>& s, bool first, bool last) {
  constexpr int kPitch = Shared<D>::kPitch, kTiles = Sums<D>::kTiles;
  float qa[2] = {}, kt[2] = {}, kc[2] = {};
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int i = block() * 16 + tile_row(2 * half);
    const float b = s.tokens.b[i];
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
      const int at_i = i * kPitch + Sums<D>::channel(j);
      const float2 q = load_pair(s.q + at_i), k = load_pair(s.k + at_i);
#pragma unroll
      for (int x = 0; x < 2; ++x) {
        const int e = 2 * half + x;
        const float a = sum.a[j][e], r = sum.r[j][e] + b * sum.c[j][e];
        dq[j][e] = grouped && !first ? dq[j][e] + a : a;
        dk[j][e] = grouped && !first ? dk[j][e] + r : r;
        const float qx = x ? q.y : q.x, kx = x ? k.y : k.x;
        qa[half] += qx * dq[j][e], kt[half] += kx * dk[j][e], kc[half] += kx * sum.c[j][e];
      }
    }
  }
  row_sums(kc, s.kc);
  if (grouped && !last) return;
  row_sums(qa, s.qa);
  row_sums(kt, s.kt);
  __syncthreads();
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int i = block() * 16 + tile_row(2 * half);
    if (i >= at.C) continue;
    const float rq = s.tokens.q_norm[i], rk = s.tokens.k_norm[i];
    const float along_q = sum_of_parts(s.qa, i) * rq * rq * float(D);  // q_norm has K^-1/2
    const float along_k = sum_of_parts(s.kt, i) * rk * rk;
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
      const int d = Sums<D>::channel(j), e = 2 * half;
      const float2 q = load_pair(s.q + i * kPitch + d), k = load_pair(s.k + i * kPitch + d);
      float xs[2] = {rq * (dq[j][e] - q.x * along_q), rq * (dq[j][e + 1] - q.y * along_q)};
      float ys[2] = {rk * (dk[j][e] - k.x * along_k), rk * (dk[j][e + 1] - k.y * along_k)};
      put(t.dq[at.n0 + i] + h * D + d, xs, t.add_dq);
      put(t.dk[at.n0 + i] + h * D + d, ys, t.add_dk);
    }
  }
}

// dg of all tokens, then through gate and write strength: one warp, two tokens a lane. Sums are of
// what decays over the token, so that a token that forgets all has exactly 0.
template <int D>
__device__ void gate_backward(const Gradients& t, ChunkAt at, int hv, const Shared<D>& s,
                              float* part) {
  const int lane = int(threadIdx.x), i0 = 2 * lane;
  const Tokens& tokens = s.tokens;
  const float right0 = sum_of_parts(s.right, i0), right1 = sum_of_parts(s.right, i0 + 1);
  const float left0 = sum_of_parts(s.left, i0), left1 = sum_of_parts(s.left, i0 + 1);
  float after = right0 + right1, before = left0 + left1;
  for (int step = 1; step < 32; step *= 2) {
    const float x = __shfl_down_sync(~0u, after, step), y = __shfl_up_sync(~0u, before, step);
    if (lane + step < 32) after += x;
    if (lane >= step) before += y;
  }
  after = __shfl_down_sync(~0u, after, 1), before = __shfl_up_sync(~0u, before, 1);
  if (lane == 31) after = 0;
  if (lane == 0) before = 0;
  const float across =
      __expf(tokens.between(0, 4)) * warp_sum(lane < kGradientThreads / 32 ? s.states[lane] : 0);
  float dg[2] = {after + right1 + right0 + before + across,
                 after + right1 + before + left0 + across};
  for (int w = i0 / 4; w < kC / 4; ++w)
    for (int x = 0; x < 2; ++x) dg[x] += s.crossing[w * kC + i0 + x];

  const float A = __expf(t.gate.A_log[hv]);
  float dbias = 0, dA = 0;
  for (int x = 0; x < 2; ++x) {
    const int i = i0 + x;
    if (i >= at.C) continue;
    const int64_t n = at.n0 + i;
    const float db = sum_of_parts(s.kc, i) * tokens.k_norm[i], b = tokens.b[i];
    float dstep = -A * dg[x];
    if (t.gate.delta_rule) {
      float dlogit[1] = {db * b * (1 - b / t.gate.beta_max)};
      put(t.dbeta[n] + hv, dlogit, t.add_dbeta);
    } else {
      dstep += db;
    }
    float dy[1] = {dstep * sigmoid(tokens.y[i])};
    dbias += dy[0];
    dA += dg[x] * tokens.g[i];
    put(t.dg[n] + hv, dy, t.add_dg);
  }
  dbias = warp_sum(dbias), dA = warp_sum(dA);
  if (lane == 0) part[0] = dbias, part[1] = dA;
}

// Goes through (chunk, query head) gridDim.x apart. What is read of a value head comes in while the
// one before it is computed.
template <int D, bool grouped>
__global__ void __launch_bounds__(kGradientThreads, 1)
    gradients_kernel(Gradients t, Memory m, BackwardMemory b, int documents) {
  extern __shared__ __align__(16) char memory[];
  Shared<D>& s = *reinterpret_cast<Shared<D>*>(memory);
  constexpr int kPitch = Shared<D>::kPitch;
  const int64_t end = int64_t(m.first[documents]) * t.H;
  const int group = grouped ? t.HV / t.H : 1;
  const auto load = [&](int64_t item, int x) {
    if (item < end)
      load_states(t, m, b, m.chunk[item / t.H], item / t.H * t.HV + item % t.H * group + x,
                  int(item % t.H) * group + x, s);
  };
  load(blockIdx.x, 0);
  for (int64_t item = blockIdx.x; item < end; item += gridDim.x) {
    const int64_t chunk = item / t.H;
    const ChunkAt at = m.chunk[chunk];
    const int h = int(item % t.H);
    copy_rows<D, kGradientThreads>(s.q, kPitch, t.q, at, h * D);
    copy_rows<D, kGradientThreads>(s.k, kPitch, t.k, at, h * D);
    float dq[Sums<D>::kTiles][4], dk[Sums<D>::kTiles][4];
    for (int x = 0; x < group; ++x) {
      const int hv = h * group + x;
      load_gates(t.g, t.beta, t.gate, at, hv, s.tokens);
      wait_for_copies();
      __syncthreads();
      make_norms<D, kGradientThreads>(s.q, s.k, kPitch, at, s.tokens);
      make_decay(s.tokens, s.decay);
      Sums<D> sum{};
      Pairs pairs{};
      through_states(sum, pairs, s);
      __syncthreads();
      if (x + 1 < group)
        load(item, x + 1);
      else
        load(item + gridDim.x, 0);
      store_pairs(pairs, s, t.gate.delta_rule);
      through_decay(sum, s, t.gate.delta_rule);
      __syncthreads();
      crossing_pairs(s);
      through_pairs(sum, s);
      store_keys<D, grouped>(t, at, h, sum, dq, dk, s, x == 0, x + 1 == group);
      __syncthreads();
      if (threadIdx.x < 32) gate_backward(t, at, hv, s, b.parts + (chunk * t.HV + hv) * 2);
      __syncthreads();
    }
  }
}

// ddt_bias and dA_log [HV]: sums over chunks, a CTA a head.
__global__ void __launch_bounds__(256)
    sum_chunks_kernel(const float* parts, const int* chunks, int HV, float* dbias, int add_dbias,
                      float* dA, int add_dA) {
  const int hv = int(blockIdx.x), count = chunks ? *chunks : 0;
  float sum[2] = {};
  for (int c = int(threadIdx.x); c < count; c += 256)
    for (int x = 0; x < 2; ++x) sum[x] += parts[(int64_t(c) * HV + hv) * 2 + x];
  float bias[1] = {block_sum(sum[0])}, A[1] = {block_sum(sum[1])};
  if (threadIdx.x != 0) return;
  put(dbias + hv, bias, add_dbias);
  put(dA + hv, A, add_dA);
}

template <int D, bool grouped>
void gradients(const Context& ctx, const Gradients& t, const gdn::Sizes& s, const Memory& m,
               const BackwardMemory& b) {
  int device = 0, processors = 0;
  SLUICE_CUDA(cudaGetDevice(&device));
  SLUICE_CUDA(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device));
  allow_shared(gradients_kernel<D, grouped>, sizeof(Shared<D>));
  gradients_kernel<D, grouped>
      <<<unsigned(std::min<int64_t>(s.chunks() * s.H, processors)), kGradientThreads,
         sizeof(Shared<D>), ctx.stream>>>(t, m, b, int(s.documents));
  SLUICE_LAUNCHED(ctx.stream);
}

}  // namespace

void gradients(const Context& ctx, const GdnBackward& a, const gdn::Sizes& s, const Memory& m,
               const BackwardMemory& b) {
  const bool delta_rule = a.params.delta_rule, grouped = s.HV > s.H;
  const Gradients t{.q = rows_of(a.q),
                    .k = rows_of(a.k),
                    .g = rows_of(a.g),
                    .beta = beta_of(a),
                    .d_o = rows_of(a.d_o),
                    .dq = rows_of(a.dq.t),
                    .dk = rows_of(a.dk.t),
                    .dg = rows_of(a.dg.t),
                    .dbeta = delta_rule ? rows_of(a.dbeta.t) : Rows{},
                    .add_dq = a.dq.add,
                    .add_dk = a.dk.add,
                    .add_dg = a.dg.add,
                    .add_dbeta = a.dbeta.add,
                    .gate = gate_of(a),
                    .H = int(s.H),
                    .HV = int(s.HV)};
  if (s.documents > 0) {
    if (s.K == 64)
      grouped ? gradients<64, true>(ctx, t, s, m, b) : gradients<64, false>(ctx, t, s, m, b);
    else
      grouped ? gradients<128, true>(ctx, t, s, m, b) : gradients<128, false>(ctx, t, s, m, b);
  }
  sum_chunks_kernel<<<unsigned(s.HV), 256, 0, ctx.stream>>>(
      b.parts, s.documents ? m.first + s.documents : nullptr, int(s.HV), a.ddt_bias.t.as<float>(),
      a.ddt_bias.add, a.dA_log.t.as<float>(), a.dA_log.add);
  SLUICE_LAUNCHED(ctx.stream);
}

}  // namespace sluice::cuda::gdn_gpu
