// kernels/rmsnorm/rmsnorm.cu -- dw by blocks of rows, then across blocks.
//
// Memory bound. Aligned rows of up to 8192 channels (the kernels of whole rows): a CTA has some
// rows at a time in registers, so that each is read once. Others: a warp a row, which is read
// twice, the second time from cache. Sums over C are lane by lane, then a fixed tree; sums over
// rows are in row order: no atomics, so the same bits on every run.
#include "kernels/base/cuda_check.h"
#include "kernels/device/reduce.cuh"
#include "kernels/device/sum_parts.cuh"
#include "kernels/device/vec.cuh"
#include "kernels/rmsnorm/rmsnorm.h"

namespace sluice::cuda {

constexpr int kWarps = 8;
constexpr int kRows = int(kRmsNormCudaRows);

// Sums over the CTA of one number a thread and row, for all threads. One barrier: `warps` is not
// used again before the next but one call.
template <int R>
__device__ void sum_rows(float (&x)[R], float (*warps)[kWarps]) {
  const int warp = threadIdx.x / 32, count = blockDim.x / 32;
#pragma unroll
  for (int r = 0; r < R; ++r) {
    x[r] = warp_sum(x[r]);
    if (threadIdx.x % 32 == 0) warps[r][warp] = x[r];
  }
  __syncthreads();
#pragma unroll
  for (int r = 0; r < R; ++r) {
    x[r] = 0;
    for (int i = 0; i < count; ++i) x[r] += warps[r][i];
  }
}

// K times 8 channels a thread; R rows a CTA.
template <int K, int R>
__global__ void __launch_bounds__(32 * kWarps)
    forward_rows_kernel(Rows x, const float* w, Rows y, float* rstd, int64_t N, int C, float eps) {
  __shared__ float warps[R][kWarps];
  const int64_t n0 = int64_t(blockIdx.x) * R;
  const int c0 = threadIdx.x * 8, step = blockDim.x * 8;
  Packed<8> in[R][K] = {};
  float r_of[R] = {}, v[8], wc[8];
#pragma unroll
  for (int r = 0; r < R; ++r)
#pragma unroll
    for (int k = 0; k < K; ++k)
      if (n0 + r < N && c0 + k * step < C) in[r][k].fetch(x[n0 + r] + c0 + k * step);
#pragma unroll
  for (int r = 0; r < R; ++r)
#pragma unroll
    for (int k = 0; k < K; ++k) {
      in[r][k].unpack(v);
#pragma unroll
      for (int e = 0; e < 8; ++e) r_of[r] += v[e] * v[e];
    }
  sum_rows(r_of, warps);
#pragma unroll
  for (int r = 0; r < R; ++r) {
    r_of[r] = 1 / sqrtf(r_of[r] / C + eps);
    if (threadIdx.x == 0 && n0 + r < N) rstd[n0 + r] = r_of[r];
  }
#pragma unroll
  for (int k = 0; k < K; ++k) {
    const int c = c0 + k * step;
    if (c >= C) continue;
    load(wc, w + c);
#pragma unroll
    for (int r = 0; r < R; ++r) {
      if (n0 + r >= N) continue;
      in[r][k].unpack(v);
#pragma unroll
      for (int e = 0; e < 8; ++e) v[e] = v[e] * r_of[r] * wc[e];
      store(y[n0 + r] + c, v);
    }
  }
}

// A CTA kRows rows, R of them at a time.
template <int K, int R>
__global__ void __launch_bounds__(32 * kWarps)
    backward_rows_kernel(Rows x, const float* w, const float* rstd, Rows dy, Rows dx, int add_dx,
                         Rows y, float* parts, int64_t N, int C) {
  __shared__ float warps[2][R][kWarps];
  const int64_t begin = int64_t(blockIdx.x) * kRows, end = min(begin + kRows, N);
  const int c0 = threadIdx.x * 8, step = blockDim.x * 8;
  float wc[K][8] = {}, dw[K][8] = {};
#pragma unroll
  for (int k = 0; k < K; ++k)
    if (c0 + k * step < C) load(wc[k], w + c0 + k * step);
  for (int64_t n = begin; n < end; n += R) {
    Packed<8> in[R][K] = {}, up[R][K] = {}, old[R][K] = {};
    float dot[R] = {}, xv[8], d[8];
#pragma unroll
    for (int r = 0; r < R; ++r)
#pragma unroll
      for (int k = 0; k < K; ++k) {
        const int c = c0 + k * step;
        if (n + r >= end || c >= C) continue;
        in[r][k].fetch(x[n + r] + c), up[r][k].fetch(dy[n + r] + c);
        if (add_dx) old[r][k].fetch(dx[n + r] + c);
      }
#pragma unroll
    for (int r = 0; r < R; ++r)
#pragma unroll
      for (int k = 0; k < K; ++k) {
        in[r][k].unpack(xv), up[r][k].unpack(d);
#pragma unroll
        for (int e = 0; e < 8; ++e) dot[r] += wc[k][e] * d[e] * xv[e];
      }
    sum_rows(dot, warps[(n - begin) / R % 2]);
#pragma unroll
    for (int r = 0; r < R; ++r) {
      if (n + r >= end) continue;
      const float s = rstd[n + r], mean = s * s * dot[r] / C;
#pragma unroll
      for (int k = 0; k < K; ++k) {
        const int c = c0 + k * step;
        if (c >= C) continue;
        float g[8], out[8];
        in[r][k].unpack(xv), up[r][k].unpack(d), old[r][k].unpack(g);
#pragma unroll
        for (int e = 0; e < 8; ++e) {
          out[e] = xv[e] * s * wc[k][e];
          g[e] += s * (wc[k][e] * d[e] - xv[e] * mean);
          dw[k][e] += d[e] * xv[e] * s;
        }
        store(dx[n + r] + c, g);
        if (y.data) store(y[n + r] + c, out);
      }
    }
  }
#pragma unroll
  for (int k = 0; k < K; ++k)
    if (c0 + k * step < C) store(parts + int64_t(blockIdx.x) * C + c0 + k * step, dw[k]);
}

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
    backward_kernel(Rows x, const float* w, const float* rstd, Rows dy, Rows dx, int add_dx, Rows y,
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
      float xv[E], dyv[E], g[E], out[E];
      load(xv, x[begin + i] + c), load(dyv, dy[begin + i] + c);
#pragma unroll
      for (int e = 0; e < E; ++e) {
        out[e] = xv[e] * r[i] * wc[e];
        g[e] = r[i] * (wc[e] * dyv[e] - xv[e] * k[i]);
        dw[e] += dyv[e] * xv[e] * r[i];
      }
      put(dx[begin + i] + c, g, add_dx);
      if (y.data) store(y[begin + i] + c, out);
    }
    store(parts + int64_t(blockIdx.x) * C + c, dw);
  }
}

// Threads of a CTA for rows of C channels, K times 8 a thread.
static unsigned threads_for(int64_t C, int K) {
  return unsigned((C + 256 * K - 1) / (256 * K) * 32);
}
constexpr int64_t kWholeRow = 8192;  // channels

void rmsnorm_forward(const Context& ctx, const RmsNormForward& a) {
  const int64_t N = a.x.dim(0), C = a.x.dim(1);
  if (N == 0) return;
  const bool aligned = C % 8 == 0 && rows_aligned({a.x, a.y, a.w});
  if (aligned && C <= kWholeRow) {
    const int K = C <= 2048 ? 1 : C <= 4096 ? 2 : 4, R = K == 1 ? 4 : K == 2 ? 2 : 1;
    const auto kernel = K == 1   ? forward_rows_kernel<1, 4>
                        : K == 2 ? forward_rows_kernel<2, 2>
                                 : forward_rows_kernel<4, 1>;
    kernel<<<unsigned((N + R - 1) / R), threads_for(C, K), 0, ctx.stream>>>(
        rows_of(a.x), a.w.as<float>(), rows_of(a.y), a.rstd.as<float>(), N, int(C), float(a.eps));
    SLUICE_LAUNCHED(ctx.stream);
    return;
  }
  (aligned ? forward_kernel<8>
           : forward_kernel<
                 1>)<<<unsigned((N + kWarps - 1) / kWarps), dim3(32, kWarps), 0, ctx.stream>>>(
      rows_of(a.x), a.w.as<float>(), rows_of(a.y), a.rstd.as<float>(), N, int(C), float(a.eps));
  SLUICE_LAUNCHED(ctx.stream);
}

void rmsnorm_backward(const Context& ctx, const RmsNormBackward& a, Tensor parts) {
  const int64_t N = a.x.dim(0), blocks = parts.dim(0), C = a.x.dim(1);
  if (blocks > 0) {
    const bool aligned = C % 8 == 0 && rows_aligned({a.x, a.dy, a.dx.t, a.y, a.w, parts});
    const bool whole = aligned && C <= kWholeRow;
    const int K = C <= 2048 ? 1 : C <= 4096 ? 2 : 4;
    const auto kernel = !aligned ? backward_kernel<1>
                        : !whole ? backward_kernel<8>
                        : K == 1 ? backward_rows_kernel<1, 2>
                        : K == 2 ? backward_rows_kernel<2, 1>
                                 : backward_rows_kernel<4, 1>;
    const dim3 threads = whole ? dim3(threads_for(C, K)) : dim3(32, kWarps);
    kernel<<<unsigned(blocks), threads, 0, ctx.stream>>>(
        rows_of(a.x), a.w.as<float>(), a.rstd.as<float>(), rows_of(a.dy), rows_of(a.dx.t), a.dx.add,
        rows_or_none(a.y), parts.as<float>(), N, int(C));
    SLUICE_LAUNCHED(ctx.stream);
  }
  sum_parts(ctx, parts, a.dw);
}

}  // namespace sluice::cuda
