// kernels/linear_cross_entropy/linear_cross_entropy.cu -- logits of a block of rows by cuBLASLt,
// f32; a CTA a row for the softmax; their gradient in bf16 for the two products of backward.
#include <algorithm>
#include <cfloat>

#include "kernels/base/cuda_check.h"
#include "kernels/device/reduce.cuh"
#include "kernels/device/vec.cuh"
#include "kernels/gemm/cuda_gemm.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"

namespace sluice::cuda {
namespace {

constexpr int kThreads = 512;

// Of some logits: the largest, its id (the lowest of equals), and the sum of exp(logit - largest).
struct Softmax {
  float top = -FLT_MAX, sum = 0;
  int id = 0x7fffffff;

  // Logits v, v + step, ..: the largest of them first, so that one exp rescales the sum for all.
  template <int count>
  __device__ void meet(const float (&z)[count], int v, int step) {
    const float before = top;
#pragma unroll
    for (int i = 0; i < count; ++i)
      if (z[i] > top) top = z[i], id = v + i * step;
    sum *= __expf(before - top);
#pragma unroll
    for (int i = 0; i < count; ++i) sum += __expf(z[i] - top);  // NaN stays one
  }
  __device__ void meet(const Softmax& o) {
    const float t = fmaxf(top, o.top);
    id = o.top > top ? o.id : o.top == top ? min(id, o.id) : id;
    sum = sum * __expf(top - t) + o.sum * __expf(o.top - t);
    top = t;
  }
  __device__ Softmax from_lane(int offset) const {
    Softmax o;
    o.top = __shfl_xor_sync(0xffffffffu, top, offset);
    o.sum = __shfl_xor_sync(0xffffffffu, sum, offset);
    o.id = __shfl_xor_sync(0xffffffffu, id, offset);
    return o;
  }
};

// CTA r: row r of logits, row n0 + r of the problem.
__global__ void __launch_bounds__(kThreads)
    loss_kernel(const float* logits, int V, const int* targets, float* lse, float* nll,
                int* predicted) {
  __shared__ Softmax warps[kThreads / 32];
  const float* z = logits + int64_t(blockIdx.x) * V;
  Softmax mine;
  constexpr int kAtOnce = 8;
  for (int v = threadIdx.x; v < V; v += kAtOnce * kThreads) {
    float some[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i)
      some[i] = v + i * kThreads < V ? z[v + i * kThreads] : -INFINITY;
    mine.meet(some, v, kThreads);
  }
  for (int offset = 16; offset > 0; offset /= 2) mine.meet(mine.from_lane(offset));
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = mine;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int w = 1; w < kThreads / 32; ++w) mine.meet(warps[w]);
  const float l = mine.top + logf(mine.sum);
  const int t = targets[blockIdx.x];
  lse[blockIdx.x] = l;
  nll[blockIdx.x] = t == kIgnoreIndex ? 0 : l - z[t];
  if (predicted) predicted[blockIdx.x] = mine.id < V ? mine.id : 0;
}

// One CTA: the sums over tokens in f64, thread by thread, then a fixed tree.
__global__ void __launch_bounds__(1024)
    total_kernel(const float* nll, const float* lse, const int* targets, int64_t N,
                 const double* loss_scale, double z_loss, double* loss, double* terms) {
  double sum = 0, squares = 0;
  for (int64_t n = threadIdx.x; n < N; n += 1024) {
    sum += nll[n];
    if (targets[n] != kIgnoreIndex) squares += z_loss * lse[n] * lse[n];
  }
  sum = block_sum(sum), squares = block_sum(squares);
  if (threadIdx.x != 0) return;
  *loss = sum * *loss_scale + squares * *loss_scale;
  if (terms) terms[0] = sum * *loss_scale, terms[1] = squares * *loss_scale;
}

__global__ void __launch_bounds__(kThreads)
    gradient_kernel(const float* logits, bf16* gradient, int V, const int* targets,
                    const float* lse, const double* dloss, const double* loss_scale, float z_loss) {
  const float* z = logits + int64_t(blockIdx.x) * V;
  bf16* g = gradient + int64_t(blockIdx.x) * V;
  const int t = targets[blockIdx.x];
  const float scale = t == kIgnoreIndex ? 0 : float(*dloss * *loss_scale), l = lse[blockIdx.x];
  const float of_p = scale * (1 + 2 * z_loss * l);
#pragma unroll 4
  for (int v = threadIdx.x; v < V; v += kThreads) {
    const float x = scale == 0 ? 0 : of_p * __expf(z[v] - l) - (v == t ? scale : 0);
    g[v] = __float2bfloat16(x);
  }
}

}  // namespace

void linear_cross_entropy_forward(const Context& ctx, const LinearCrossEntropyForward& a,
                                  Tensor logits, Tensor nll, Tensor workspace) {
  const int64_t N = a.h.dim(0), V = a.w.dim(0);
  for (int64_t begin = 0; begin < N; begin += logits.dim(0)) {
    const int64_t rows = std::min(N - begin, logits.dim(0));
    ctx.gemm->run(ctx, Transpose::no, a.h.rows(begin, rows), Transpose::yes, a.w,
                  {logits.rows(0, rows)}, workspace);
    loss_kernel<<<unsigned(rows), kThreads, 0, ctx.stream>>>(
        logits.as<float>(), int(V), a.targets.as<int32_t>() + begin, a.lse.as<float>() + begin,
        nll.as<float>() + begin, a.predicted ? a.predicted.as<int32_t>() + begin : nullptr);
    SLUICE_LAUNCHED(ctx.stream);
  }
  total_kernel<<<1, 1024, 0, ctx.stream>>>(
      nll.as<float>(), a.lse.as<float>(), a.targets.as<int32_t>(), N, a.loss_scale.as<double>(),
      a.z_loss, a.loss.as<double>(), a.terms ? a.terms.as<double>() : nullptr);
  SLUICE_LAUNCHED(ctx.stream);
}

void linear_cross_entropy_backward(const Context& ctx, const LinearCrossEntropyBackward& a,
                                   Tensor logits, Tensor gradient, Tensor workspace) {
  const int64_t N = a.h.dim(0), V = a.w.dim(0);
  if (N == 0)  // a product of no rows: zeros, or nothing
    ctx.gemm->run(ctx, Transpose::yes, gradient, Transpose::no, a.h, a.dw, workspace);
  for (int64_t begin = 0; begin < N; begin += logits.dim(0)) {
    const int64_t rows = std::min(N - begin, logits.dim(0));
    const Tensor h = a.h.rows(begin, rows), g = gradient.rows(0, rows);
    ctx.gemm->run(ctx, Transpose::no, h, Transpose::yes, a.w, {logits.rows(0, rows)}, workspace);
    gradient_kernel<<<unsigned(rows), kThreads, 0, ctx.stream>>>(
        logits.as<float>(), g.as<bf16>(), int(V), a.targets.as<int32_t>() + begin,
        a.lse.as<float>() + begin, a.dloss.as<double>(), a.loss_scale.as<double>(),
        float(a.z_loss));
    SLUICE_LAUNCHED(ctx.stream);
    ctx.gemm->run(ctx, Transpose::no, g, Transpose::no, a.w, {a.dh.t.rows(begin, rows), a.dh.add},
                  workspace);
    ctx.gemm->run(ctx, Transpose::yes, g, Transpose::no, h, {a.dw.t, a.dw.add || begin > 0},
                  workspace);
  }
}

}  // namespace sluice::cuda
