// kernels/chunks/cuda_general_rows.cu -- norms, gates and write strengths by token, and back
// through them.
#include "kernels/base/cuda_check.h"
#include "kernels/chunks/cuda_general.cuh"
#include "kernels/device/reduce.cuh"
#include "kernels/device/sum_parts.cuh"

namespace sluice::chunks::general {

namespace {

constexpr int kRows = kThreads / 32;  // of a CTA, a warp each

// q, k, g and b of a token and value head, by a warp.
__global__ void __launch_bounds__(kThreads) rows_kernel(General a, GeneralMemory m) {
  const GeneralSizes& s = a.size;
  const int64_t row = (int64_t(blockIdx.x) * kThreads + threadIdx.x) / 32;
  if (row >= s.N * s.HV) return;
  const int lane = int(threadIdx.x) % 32, hv = int(row % s.HV), h = hv / int(s.HV / s.H);
  const int64_t n = row / s.HV;
  const bf16 *q = a.q[n] + h * s.K, *k = a.k[n] + h * s.K;
  float qq = 0, kk = 0;
  for (int d = lane; d < s.K; d += 32) {
    const float x = __bfloat162float(q[d]), y = __bfloat162float(k[d]);
    qq += x * x, kk += y * y;
  }
  const float q_norm = 1 / sqrtf((warp_sum(qq) + a.eps) * float(s.K));
  const float k_norm = 1 / sqrtf(warp_sum(kk) + a.eps);
  for (int d = lane; d < s.K; d += 32) {
    m.q[row * s.K + d] = __bfloat162float(q[d]) * q_norm;
    m.k[row * s.K + d] = __bfloat162float(k[d]) * k_norm;
  }
  const float A = expf(a.gate.A_log[hv]);
  float y = 0;
  for (int d = lane; d < s.G; d += 32) {
    y = __bfloat162float(a.z[n][hv * s.G + d]) + a.gate.bias[hv * s.G + d];
    const float g = a.gate.bounded ? a.gate.lower_bound * logistic(A * y) : -A * log_1_plus_exp(y);
    m.g[row * s.G + d] = fmaxf(g, kForgotten);
  }
  if (lane == 0)
    m.b[row] = a.gate.delta_rule ? a.gate.beta_max * logistic(__bfloat162float(a.beta[n][hv]))
                                 : log_1_plus_exp(y);
}

// The logit's gradient from that of the log decay, and of the step where that is what is written.
__device__ float logit_gradient(const GeneralGate& gate, float A, float y, float dg, float db,
                                float& dA) {
  if (gate.bounded) {
    const float p = logistic(A * y), x = dg * gate.lower_bound * p * (1 - p);
    dA += x == 0 ? 0 : x * A * y;  // not 0 * infinity
    return A * x;
  }
  const float step = log_1_plus_exp(y);
  dA += dg == 0 ? 0 : -dg * A * step;
  return (gate.delta_rule ? -A * dg : db - A * dg) * logistic(y);
}

// Gates of one token and value head, by a warp.
__device__ void gate_backward(const GeneralBackward& t, const GeneralScratch& b, int64_t n, int hv,
                              float db, float strength) {
  const GeneralSizes& s = t.size;
  const int64_t row = n * s.HV + hv;
  const int lane = int(threadIdx.x) % 32;
  const float A = expf(t.gate.A_log[hv]);
  float dA = 0, all = 0;
  if (s.G == 1) {
    for (int d = lane; d < s.K; d += 32) all += b.dg[row * s.K + d];
    all = warp_sum(all);
  }
  for (int d = lane; d < s.G; d += 32) {
    const float y = __bfloat162float(t.z[n][hv * s.G + d]) + t.gate.bias[hv * s.G + d];
    float dy[1] = {logit_gradient(t.gate, A, y, s.G == 1 ? all : b.dg[row * s.K + d], db, dA)};
    b.dz[row * s.G + d] = dy[0];
    put(t.dz[n] + hv * s.G + d, dy, t.add_dz);
  }
  dA = warp_sum(dA);
  if (lane != 0) return;
  b.dA[row] = dA;
  if (!t.gate.delta_rule) return;
  float dlogit[1] = {db * strength * (1 - strength / t.gate.beta_max)};
  put(t.dbeta[n] + hv, dlogit, t.add_dbeta);
}

// dx = r (dxn - xn (xn . dxn)), xn of length `length`: a row by a warp.
__device__ void norm_backward(const bf16* x, const float* xn, const float (&dxn)[8], float eps,
                              float length, int K, bf16* out, int add) {
  const int lane = int(threadIdx.x) % 32;
  float xx = 0, along = 0;
#pragma unroll
  for (int e = 0; e < 8; ++e)
    if (const int d = lane + 32 * e; d < K) {
      const float y = __bfloat162float(x[d]);
      xx += y * y, along += xn[d] * dxn[e];
    }
  const float r = length / sqrtf(warp_sum(xx) + eps);
  along = warp_sum(along) / (length * length);
#pragma unroll
  for (int e = 0; e < 8; ++e)
    if (const int d = lane + 32 * e; d < K) {
      float y[1] = {r * (dxn[e] - xn[d] * along)};
      put(out + d, y, add);
    }
}

// A token and query head, by a warp: its value heads' cotangents, in order.
__global__ void __launch_bounds__(kThreads)
    tokens_kernel(GeneralBackward t, GeneralMemory m, GeneralScratch b) {
  const GeneralSizes& s = t.size;
  const int64_t unit = (int64_t(blockIdx.x) * kThreads + threadIdx.x) / 32;
  if (unit >= s.N * s.H) return;
  const int64_t n = unit / s.H;
  const int h = int(unit % s.H), group = int(s.HV / s.H), lane = int(threadIdx.x) % 32;
  const int K = int(s.K);
  float dq[8] = {}, dk[8] = {};
  for (int hv = h * group; hv < (h + 1) * group; ++hv) {
    const int64_t row = n * s.HV + hv;
    const float strength = m.b[row];
    float db = 0;
#pragma unroll
    for (int e = 0; e < 8; ++e)
      if (const int d = lane + 32 * e; d < K) {
        const float c = b.c[row * K + d];
        dq[e] += b.a[row * K + d];
        dk[e] += b.r[row * K + d] + strength * c;
        db += m.k[row * K + d] * c;
      }
    gate_backward(t, b, n, hv, warp_sum(db), strength);
  }
  const int64_t first = (n * s.HV + h * group) * K;
  norm_backward(t.q[n] + h * K, m.q + first, dq, t.eps, rsqrtf(float(K)), K, t.dq[n] + h * K,
                t.add_dq);
  norm_backward(t.k[n] + h * K, m.k + first, dk, t.eps, 1, K, t.dk[n] + h * K, t.add_dk);
}

// parts [N / 256, C]: sums over 256 rows each of x [N, C].
__global__ void __launch_bounds__(kThreads)
    sum_rows_kernel(const float* x, int64_t N, int64_t C, float* parts) {
  const int64_t c = int64_t(blockIdx.x) * kThreads + threadIdx.x,
                begin = blockIdx.y * kGeneralSumRows;
  if (c >= C) return;
  float sum = 0;
  for (int64_t n = begin; n < min(begin + kGeneralSumRows, N); ++n) sum += x[n * C + c];
  parts[blockIdx.y * C + c] = sum;
}

void sum_rows(const Context& ctx, float* x, int64_t N, int64_t C, float* parts, const Grad& out) {
  const int64_t blocks = (N + kGeneralSumRows - 1) / kGeneralSumRows;
  if (blocks > 0) {
    sum_rows_kernel<<<dim3(unsigned((C + kThreads - 1) / kThreads), unsigned(blocks)), kThreads, 0,
                      ctx.stream>>>(x, N, C, parts);
    SLUICE_LAUNCHED(ctx.stream);
  }
  sum_parts(ctx, make_tensor(parts, DType::f32, Device::cuda, {blocks, C}),
            {out.t.reshape({C}), out.add});
}

}  // namespace

void make_rows(const Context& ctx, const General& a, const GeneralMemory& m) {
  const int64_t rows = a.size.N * a.size.HV;
  if (rows == 0) return;
  rows_kernel<<<unsigned((rows + kRows - 1) / kRows), kThreads, 0, ctx.stream>>>(a, m);
  SLUICE_LAUNCHED(ctx.stream);
}

void rows_backward(const Context& ctx, const GeneralBackward& a, const GeneralMemory& m,
                   const GeneralScratch& b) {
  const GeneralSizes& s = a.size;
  if (s.N > 0) {
    tokens_kernel<<<unsigned((s.N * s.H + kRows - 1) / kRows), kThreads, 0, ctx.stream>>>(a, m, b);
    SLUICE_LAUNCHED(ctx.stream);
  }
  sum_rows(ctx, b.dz, s.N, s.HV * s.G, b.parts, a.ddt_bias);
  sum_rows(ctx, b.dA, s.N, s.HV, b.parts, a.dA_log);
}

}  // namespace sluice::chunks::general
