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

// The gradient of a row's logits z; l is the row's lse.
__device__ void write_gradient(const float* z, bf16* g, int V, int target, float l, float scale,
                               float z_loss) {
  if (target == kIgnoreIndex) scale = 0;
  const float of_p = scale * (1 + 2 * z_loss * l);
  const auto at = [&](float logit, int v) {
    return scale == 0 ? 0 : of_p * __expf(logit - l) - (v == target ? scale : 0);
  };
  if (V % 2 == 0) {  // then rows of z and g are aligned for pairs
#pragma unroll 4
    for (int v = 2 * threadIdx.x; v < V; v += 2 * kThreads) {
      const float2 pair = *reinterpret_cast<const float2*>(z + v);
      const float x[2] = {at(pair.x, v), at(pair.y, v + 1)};
      store(g + v, x);
    }
    return;
  }
  for (int v = threadIdx.x; v < V; v += kThreads) g[v] = __float2bfloat16(at(z[v], v));
}

// CTA r: row r of logits, row n0 + r of the problem. With a gradient, it is that for dloss = 1; the
// row is read from cache for it.
__global__ void __launch_bounds__(kThreads)
    loss_kernel(const float* logits, int V, const int* targets, float* lse, float* nll,
                int* predicted, bf16* gradient, const double* loss_scale, float z_loss) {
  __shared__ Softmax warps[kThreads / 32];
  __shared__ float lse_of_row;
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
  const int t = targets[blockIdx.x];
  if (threadIdx.x == 0) {
    for (int w = 1; w < kThreads / 32; ++w) mine.meet(warps[w]);
    const float l = mine.top + logf(mine.sum);
    lse[blockIdx.x] = lse_of_row = l;
    nll[blockIdx.x] = t == kIgnoreIndex ? 0 : l - z[t];
    if (predicted) predicted[blockIdx.x] = mine.id < V ? mine.id : 0;
  }
  if (!gradient) return;
  __syncthreads();
  write_gradient(z, gradient + int64_t(blockIdx.x) * V, V, t, lse_of_row, float(*loss_scale),
                 z_loss);
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
  const int64_t row = int64_t(blockIdx.x) * V;
  write_gradient(logits + row, gradient + row, V, targets[blockIdx.x], lse[blockIdx.x],
                 float(*dloss * *loss_scale), z_loss);
}

}  // namespace

// dh and dw of rows `begin` on, of whose logits `g` is the gradient.
static void products(const Context& ctx, const Tensor& h, const Tensor& w, const Tensor& g,
                     const Grad& dh, Grad dw, int64_t begin, const Tensor& workspace) {
  const int64_t rows = g.dim(0);
  dw.add |= begin > 0;
  ctx.gemm->run(ctx, Transpose::no, g, Transpose::no, w, {dh.t.rows(begin, rows), dh.add},
                workspace);
  ctx.gemm->run(ctx, Transpose::yes, g, Transpose::no, h.rows(begin, rows), dw, workspace);
}

void linear_cross_entropy_forward(const Context& ctx, const LinearCrossEntropyForward& a,
                                  Tensor logits, Tensor gradient, Tensor nll, Tensor workspace) {
  const int64_t N = a.h.dim(0), V = a.w.dim(0);
  if (N == 0 && a.dw)  // a product of no rows: zeros, or nothing
    ctx.gemm->run(ctx, Transpose::yes, gradient, Transpose::no, a.h, a.dw, workspace);
  for (int64_t begin = 0; begin < N; begin += logits.dim(0)) {
    const int64_t rows = std::min(N - begin, logits.dim(0));
    ctx.gemm->run(ctx, Transpose::no, a.h.rows(begin, rows), Transpose::yes, a.w,
                  {logits.rows(0, rows)}, workspace);
    loss_kernel<<<unsigned(rows), kThreads, 0, ctx.stream>>>(
        logits.as<float>(), int(V), a.targets.as<int32_t>() + begin, a.lse.as<float>() + begin,
        nll.as<float>() + begin, a.predicted ? a.predicted.as<int32_t>() + begin : nullptr,
        a.dh ? gradient.as<bf16>() : nullptr, a.loss_scale.as<double>(), float(a.z_loss));
    SLUICE_LAUNCHED(ctx.stream);
    if (a.dh) products(ctx, a.h, a.w, gradient.rows(0, rows), {a.dh}, a.dw, begin, workspace);
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
    const Tensor g = gradient.rows(0, rows);
    ctx.gemm->run(ctx, Transpose::no, a.h.rows(begin, rows), Transpose::yes, a.w,
                  {logits.rows(0, rows)}, workspace);
    gradient_kernel<<<unsigned(rows), kThreads, 0, ctx.stream>>>(
        logits.as<float>(), g.as<bf16>(), int(V), a.targets.as<int32_t>() + begin,
        a.lse.as<float>() + begin, a.dloss.as<double>(), a.loss_scale.as<double>(),
        float(a.z_loss));
    SLUICE_LAUNCHED(ctx.stream);
    products(ctx, a.h, a.w, g, a.dh, a.dw, begin, workspace);
  }
}

}  // namespace sluice::cuda
