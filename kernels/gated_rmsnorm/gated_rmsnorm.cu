// kernels/gated_rmsnorm/gated_rmsnorm.cu -- up to 32 lanes a head of a token, all of it in
// registers.
//
// A lane has 8 channels: consecutive ones, 16 bytes, where C is 8, 16, .. 256 and rows are aligned;
// else every 32nd, with a warp a head and C up to 256.
#include "kernels/base/cuda_check.h"
#include "kernels/device/reduce.cuh"
#include "kernels/device/sum_parts.cuh"
#include "kernels/device/vec.cuh"
#include "kernels/gated_rmsnorm/gated_rmsnorm.h"

namespace sluice::cuda {
namespace {

constexpr int kThreads = 256, kMaxC = 256, kE = 8;

struct Shape {
  int64_t units;        // N * H
  int64_t rstd_stride;  // of rows of rstd [N, H]
  int H, C, G;          // G lanes a unit
};

// The 8 channels of a lane, those beyond C as 0.
template <bool aligned>
struct Lane {
  int lane, C;
  __device__ int channel(int e) const { return aligned ? lane * kE + e : e * 32 + lane; }
  template <class T>
  __device__ void load(float (&x)[kE], const T* p) const {
    if constexpr (aligned) {
      sluice::load(x, p + lane * kE);
    } else {
#pragma unroll
      for (int e = 0; e < kE; ++e) {
        float one[1] = {0};
        if (channel(e) < C) sluice::load(one, p + channel(e));
        x[e] = one[0];
      }
    }
  }
  template <class T>
  __device__ void put(T* p, float (&x)[kE], bool add) const {
    if constexpr (aligned) {
      sluice::put(p + lane * kE, x, add);
    } else {
#pragma unroll
      for (int e = 0; e < kE; ++e) {
        float one[1] = {x[e]};
        if (channel(e) < C) sluice::put(p + channel(e), one, add);
      }
    }
  }
};

template <bool aligned>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(Rows x, Rows gate, const float* w, Rows y, float* rstd, Shape s, float eps,
                   int swish) {
  const Lane<aligned> lane{int(threadIdx.x) % s.G, s.C};
  float wc[kE];
  lane.load(wc, w);
  const int per_cta = kThreads / s.G;
  for (int64_t base = int64_t(blockIdx.x) * per_cta; base < s.units;
       base += int64_t(gridDim.x) * per_cta) {
    const int64_t unit = base + threadIdx.x / s.G;
    const bool there = unit < s.units;  // lanes of a warp go on together: warp_sum needs them all
    const int64_t n = there ? unit / s.H : 0;
    const int at = there ? int(unit % s.H) * s.C : 0;
    float v[kE], g[kE];
    lane.load(v, x[n] + at);
    if (gate.data) lane.load(g, gate[n] + at);
    float sum = 0;
#pragma unroll
    for (int e = 0; e < kE; ++e) sum += v[e] * v[e];
    const float r = 1 / sqrtf(warp_sum(sum, s.G) / s.C + eps);
#pragma unroll
    for (int e = 0; e < kE; ++e) {
      v[e] *= r * wc[e];
      if (gate.data) v[e] *= swish ? g[e] * sigmoid(g[e]) : sigmoid(g[e]);
    }
    if (!there) continue;
    lane.put(y[n] + at, v, false);
    if (lane.lane == 0) rstd[n * s.rstd_stride + unit % s.H] = r;
  }
}

// One CTA kGatedRmsNormCudaRows tokens; parts [CTA, C]: their part of dw, units in order by lane
// group, then the groups in order.
template <bool aligned>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(Rows x, Rows gate, const float* w, const float* rstd, Rows dy, Rows dx,
                    int add_x, Rows dgate, int add_gate, Rows y, float* parts, Shape s, int swish) {
  __shared__ float sums[kThreads][kE + 1];  // by thread
  const Lane<aligned> lane{int(threadIdx.x) % s.G, s.C};
  float wc[kE], dw[kE] = {};
  lane.load(wc, w);
  const int per_cta = kThreads / s.G;
  const int64_t first = int64_t(blockIdx.x) * kGatedRmsNormCudaRows * s.H,
                last = min(first + kGatedRmsNormCudaRows * s.H, s.units);
  for (int64_t base = first; base < last; base += per_cta) {
    const int64_t unit = base + threadIdx.x / s.G;
    const bool there = unit < last;
    const int64_t n = there ? unit / s.H : 0;
    const int at = there ? int(unit % s.H) * s.C : 0;
    float v[kE], g[kE], d[kE];
    lane.load(v, x[n] + at), lane.load(d, dy[n] + at);
    const float r = there ? rstd[n * s.rstd_stride + unit % s.H] : 0;
    float out[kE];
#pragma unroll
    for (int e = 0; e < kE; ++e) out[e] = v[e] * (r * wc[e]);
    if (gate.data) {
      lane.load(g, gate[n] + at);
#pragma unroll
      for (int e = 0; e < kE; ++e) {
        const float sg = sigmoid(g[e]), u = swish ? g[e] * sg : sg;
        const float slope = swish ? sg * (1 + g[e] * (1 - sg)) : sg * (1 - sg);
        g[e] = d[e] * v[e] * r * wc[e] * slope;
        d[e] *= u;
        out[e] *= u;
      }
      if (there) lane.put(dgate[n] + at, g, add_gate);
    }
    if (y.data && there) lane.put(y[n] + at, out, false);
    float dot = 0;
#pragma unroll
    for (int e = 0; e < kE; ++e) dot += wc[e] * d[e] * v[e];
    const float k = r * r * warp_sum(dot, s.G) / s.C;
#pragma unroll
    for (int e = 0; e < kE; ++e) {
      dw[e] += d[e] * v[e] * r;
      v[e] = r * (wc[e] * d[e] - v[e] * k);
    }
    if (there) lane.put(dx[n] + at, v, add_x);
  }
#pragma unroll
  for (int e = 0; e < kE; ++e) sums[threadIdx.x][e] = dw[e];
  __syncthreads();
  for (int c = threadIdx.x; c < s.C; c += kThreads) {
    const int l = aligned ? c / kE : c % 32, e = aligned ? c % kE : c / 32;
    float sum = 0;
    for (int group = 0; group < per_cta; ++group) sum += sums[group * s.G + l][e];
    parts[int64_t(blockIdx.x) * s.C + c] = sum;
  }
}

bool is_aligned(int64_t C, std::initializer_list<Tensor> tensors) {
  return C >= 8 && C <= kMaxC && (C & (C - 1)) == 0 && rows_aligned(tensors);
}

Shape shape_of(const Tensor& x, const Tensor& rstd, bool aligned) {
  const int64_t C = x.dim(2);
  SLUICE_CHECK(C <= kMaxC, "x is ", to_string(x), ", expected at most ", kMaxC, " channels a head");
  return {x.dim(0) * x.dim(1), rstd.stride[0], int(x.dim(1)), int(C), aligned ? int(C) / kE : 32};
}

}  // namespace

void gated_rmsnorm_forward(const Context& ctx, const GatedRmsNormForward& a) {
  const bool aligned = is_aligned(a.x.dim(2), {a.x, a.gate, a.y, a.w});
  const Shape s = shape_of(a.x, a.rstd, aligned);
  if (s.units == 0) return;
  (aligned ? forward_kernel<true>
           : forward_kernel<false>)<<<grid_for(s.units * s.G, kThreads), kThreads, 0, ctx.stream>>>(
      rows_of(a.x), rows_or_none(a.gate), a.w.as<float>(), rows_of(a.y), a.rstd.as<float>(), s,
      float(a.eps), a.activation == GateActivation::swish);
  SLUICE_LAUNCHED(ctx.stream);
}

void gated_rmsnorm_backward(const Context& ctx, const GatedRmsNormBackward& a, Tensor parts) {
  const bool aligned = is_aligned(a.x.dim(2), {a.x, a.gate, a.dy, a.dx.t, a.dgate.t, a.y, a.w});
  const Shape s = shape_of(a.x, a.rstd, aligned);
  if (parts.dim(0) > 0) {
    (aligned ? backward_kernel<true>
             : backward_kernel<false>)<<<unsigned(parts.dim(0)), kThreads, 0, ctx.stream>>>(
        rows_of(a.x), rows_or_none(a.gate), a.w.as<float>(), a.rstd.as<float>(), rows_of(a.dy),
        rows_of(a.dx.t), a.dx.add, rows_or_none(a.dgate.t), a.dgate.add, rows_or_none(a.y),
        parts.as<float>(), s, a.activation == GateActivation::swish);
    SLUICE_LAUNCHED(ctx.stream);
  }
  sum_parts(ctx, parts, a.dw);
}

}  // namespace sluice::cuda
