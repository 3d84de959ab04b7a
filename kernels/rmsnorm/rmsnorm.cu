// kernels/rmsnorm/rmsnorm.cu -- a warp a row; dw by blocks of rows, then across blocks.
//
// Memory bound: forward reads x once from memory, backward x and dy (the second time from cache).
// Sums over C are lane by lane, then a fixed tree; sums over rows are in row order: no atomics, so
// the same bits on every run.
#include "kernels/base/cuda_check.h"
#include "kernels/device/reduce.cuh"
#include "kernels/device/sum_parts.cuh"
#include "kernels/device/vec.cuh"
#include "kernels/rmsnorm/rmsnorm.h"

namespace sluice::cuda {

constexpr int kWarps = 8;
constexpr int kRows = int(kRmsNormBlockRows);

template <int E>
__global__ void __launch_bounds__(32 * kWarps)
    forward_kernel(Rows x, const float* w, Rows y, float* rstd, int64_t N, int C, float eps) {
  const int64_t n = int64_t(blockIdx.x) * kWarps + threadIdx.y;
  if (n >= N) return;  // whole warps leave together: warp_sum stays valid
  const bf16* xn = x[n];
  float sum = 0;
#pragma unroll 4
  for (int c = threadIdx.x * E; c < C; c += 32 * E) {
    float v[E];
    load(v, xn + c);
#pragma unroll
    for (int e = 0; e < E; ++e) sum += v[e] * v[e];
  }
  const float r = 1 / sqrtf(warp_sum(sum) / C + eps);
#pragma unroll 4
  for (int c = threadIdx.x * E; c < C; c += 32 * E) {
    float v[E], wc[E];
    load(v, xn + c), load(wc, w + c);
#pragma unroll
    for (int e = 0; e < E; ++e) v[e] = v[e] * r * wc[e];
    store(y[n] + c, v);
  }
  if (threadIdx.x == 0) rstd[n] = r;
}

// One CTA a block of kRows rows. First a warp a row: k[n] = r^2 mean_c(w dy x). Then a thread E
// channels, down the rows: dx, and this block's part of dw [C] in row order.
template <int E>
__global__ void __launch_bounds__(32 * kWarps)
    backward_kernel(Rows x, const float* w, const float* rstd, Rows dy, Rows dx, int add_dx,
                    float* parts, int64_t N, int C) {
  __shared__ float k[kRows], r[kRows];
  const int64_t begin = int64_t(blockIdx.x) * kRows;
  const int count = int(min(N - begin, int64_t(kRows)));
  for (int i = threadIdx.y; i < count; i += kWarps) {
    const bf16 *xn = x[begin + i], *dyn = dy[begin + i];
    float dot = 0;
#pragma unroll 4
    for (int c = threadIdx.x * E; c < C; c += 32 * E) {
      float xv[E], dyv[E], wc[E];
      load(xv, xn + c), load(dyv, dyn + c), load(wc, w + c);
#pragma unroll
      for (int e = 0; e < E; ++e) dot += wc[e] * dyv[e] * xv[e];
    }
    dot = warp_sum(dot);
    if (threadIdx.x == 0) {
      r[i] = rstd[begin + i];
      k[i] = r[i] * r[i] * dot / C;
    }
  }
  __syncthreads();
  for (int c = (threadIdx.y * 32 + threadIdx.x) * E; c < C; c += 32 * kWarps * E) {
    float wc[E], dw[E] = {};
    load(wc, w + c);
#pragma unroll 4
    for (int i = 0; i < count; ++i) {
      float xv[E], dyv[E], g[E];
      load(xv, x[begin + i] + c), load(dyv, dy[begin + i] + c);
#pragma unroll
      for (int e = 0; e < E; ++e) {
        g[e] = r[i] * (wc[e] * dyv[e] - xv[e] * k[i]);
        dw[e] += dyv[e] * xv[e] * r[i];
      }
      put(dx[begin + i] + c, g, add_dx);
    }
    store(parts + int64_t(blockIdx.x) * C + c, dw);
  }
}

void rmsnorm_forward(const Context& ctx, const RmsNormForward& a) {
  const int64_t N = a.x.dim(0), C = a.x.dim(1);
  if (N == 0) return;
  const bool aligned = C % 8 == 0 && rows_aligned({a.x, a.y, a.w});
  (aligned ? forward_kernel<8>
           : forward_kernel<
                 1>)<<<unsigned((N + kWarps - 1) / kWarps), dim3(32, kWarps), 0, ctx.stream>>>(
      rows_of(a.x), a.w.as<float>(), rows_of(a.y), a.rstd.as<float>(), N, int(C), float(a.eps));
  SLUICE_LAUNCHED(ctx.stream);
}

void rmsnorm_backward(const Context& ctx, const RmsNormBackward& a, Tensor parts) {
  const int64_t N = a.x.dim(0), blocks = parts.dim(0), C = a.x.dim(1);
  if (blocks > 0) {
    const bool aligned = C % 8 == 0 && rows_aligned({a.x, a.dy, a.dx.t, a.w, parts});
    (aligned ? backward_kernel<8>
             : backward_kernel<1>)<<<unsigned(blocks), dim3(32, kWarps), 0, ctx.stream>>>(
        rows_of(a.x), a.w.as<float>(), a.rstd.as<float>(), rows_of(a.dy), rows_of(a.dx.t), a.dx.add,
        parts.as<float>(), N, int(C));
    SLUICE_LAUNCHED(ctx.stream);
  }
  sum_parts(ctx, parts, a.dw);
}

}  // namespace sluice::cuda
