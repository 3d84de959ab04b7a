// kernels/rmsnorm/rmsnorm.cu -- a warp a row; dw by blocks of rows, then across blocks. f32.
//
// Memory bound: forward reads x once from memory, backward x and dy (the second time from cache).
// Sums over C are lane by lane, then a fixed tree; sums over rows are in row order: no atomics, so
// the same bits on every run.
#include "kernels/base/cuda_check.h"
#include "kernels/device/reduce.cuh"
#include "kernels/rmsnorm/rmsnorm.h"

namespace sluice::cuda {

constexpr int kWarps = 8;
constexpr int kRows = int(kRmsNormBlockRows);

struct Rows {  // [N, C], rows `stride` elements apart
  float* data;
  int64_t stride;
  __device__ float* operator[](int64_t n) const { return data + n * stride; }
};

static Rows rows(const Tensor& t) {
  return {t.as<float>(), t.stride[0]};
}

__global__ void __launch_bounds__(32 * kWarps)
    forward_kernel(Rows x, const float* w, Rows y, float* rstd, int64_t N, int C, float eps) {
  const int64_t n = int64_t(blockIdx.x) * kWarps + threadIdx.y;
  if (n >= N) return;  // whole warps leave together: warp_sum stays valid
  const float* xn = x[n];
  float* yn = y[n];
  float sum = 0;
  for (int c = threadIdx.x; c < C; c += 32) sum += xn[c] * xn[c];
  const float r = 1 / sqrtf(warp_sum(sum) / C + eps);
  for (int c = threadIdx.x; c < C; c += 32) yn[c] = xn[c] * r * w[c];
  if (threadIdx.x == 0) rstd[n] = r;
}

// One CTA a block of kRows rows. First a warp a row: k[n] = r^2 mean_c(w dy x). Then a thread a
// channel, down the rows: dx, and this block's part of dw [C] in row order.
__global__ void __launch_bounds__(32 * kWarps)
    backward_kernel(Rows x, const float* w, const float* rstd, Rows dy, Rows dx, int add_dx,
                    float* parts, int64_t N, int C) {
  __shared__ float k[kRows], r[kRows];
  const int64_t begin = int64_t(blockIdx.x) * kRows;
  const int count = int(min(N - begin, int64_t(kRows)));
  for (int i = threadIdx.y; i < count; i += kWarps) {
    const float *xn = x[begin + i], *dyn = dy[begin + i];
    float dot = 0;
    for (int c = threadIdx.x; c < C; c += 32) dot += w[c] * dyn[c] * xn[c];
    dot = warp_sum(dot);
    if (threadIdx.x == 0) {
      r[i] = rstd[begin + i];
      k[i] = r[i] * r[i] * dot / C;
    }
  }
  __syncthreads();
  for (int c = threadIdx.y * 32 + threadIdx.x; c < C; c += 32 * kWarps) {
    const float wc = w[c];
    float dw = 0;
#pragma unroll 4
    for (int i = 0; i < count; ++i) {
      const float xv = x[begin + i][c], dyv = dy[begin + i][c];
      const float g = r[i] * (wc * dyv - xv * k[i]);
      float* out = dx[begin + i] + c;
      *out = add_dx ? *out + g : g;
      dw += dyv * xv * r[i];
    }
    parts[int64_t(blockIdx.x) * C + c] = dw;
  }
}

constexpr int kSlices = 16;

// dw[c] = sum over blocks b of parts[b, c]: slice s takes b = s, s + kSlices, ... in order, then
// the slices are added in order. One CTA 32 channels.
__global__ void __launch_bounds__(32 * kSlices)
    sum_parts_kernel(const float* parts, int64_t blocks, int C, float* dw, int add_dw) {
  __shared__ float slices[kSlices][32];
  const int c = blockIdx.x * 32 + threadIdx.x;
  float sum = 0;
  if (c < C) {
#pragma unroll 4
    for (int64_t b = threadIdx.y; b < blocks; b += kSlices) sum += parts[b * C + c];
  }
  slices[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || c >= C) return;
  for (int s = 1; s < kSlices; ++s) sum += slices[s][threadIdx.x];
  dw[c] = add_dw ? dw[c] + sum : sum;
}

void rmsnorm_forward(const Context& ctx, const RmsNormForward& a) {
  const int64_t N = a.x.dim(0);
  if (N == 0) return;
  forward_kernel<<<unsigned((N + kWarps - 1) / kWarps), dim3(32, kWarps), 0, ctx.stream>>>(
      rows(a.x), a.w.as<float>(), rows(a.y), a.rstd.as<float>(), N, int(a.x.dim(1)), float(a.eps));
  SLUICE_LAUNCHED(ctx.stream);
}

void rmsnorm_backward(const Context& ctx, const RmsNormBackward& a, Tensor parts) {
  const int64_t N = a.x.dim(0), blocks = parts.dim(0);
  const int C = int(a.x.dim(1));
  if (C == 0) return;
  if (blocks > 0) {
    backward_kernel<<<unsigned(blocks), dim3(32, kWarps), 0, ctx.stream>>>(
        rows(a.x), a.w.as<float>(), a.rstd.as<float>(), rows(a.dy), rows(a.dx.t), a.dx.add,
        parts.as<float>(), N, C);
    SLUICE_LAUNCHED(ctx.stream);
  }
  sum_parts_kernel<<<unsigned((C + 31) / 32), dim3(32, kSlices), 0, ctx.stream>>>(
      parts.as<float>(), blocks, C, a.dw.t.as<float>(), a.dw.add);
  SLUICE_LAUNCHED(ctx.stream);
}

}  // namespace sluice::cuda
