// kernels/muon/muon.cu -- three passes over the elements, and cuBLASLt's strided batches between:
// bf16 operands, f32 sums.
#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/base/cuda_check.h"
#include "kernels/device/reduce.cuh"
#include "kernels/device/vec.cuh"
#include "kernels/gemm/cuda_gemm.h"
#include "kernels/muon/scratch.h"

namespace sluice::cuda {

constexpr int kThreads = 256;

// Part blockIdx.x of matrix blockIdx.y, `size` elements each; parts are multiples of 8 elements.
struct Part {
  int64_t begin, end;
};
static __device__ Part part_of(int64_t size) {
  const int64_t part = ((size + kMuonParts - 1) / kMuonParts + 7) / 8 * 8,
                begin = min(blockIdx.x * part, size);
  return {begin, min(begin + part, size)};
}

// body(i, E constant) over a part: 8 elements at a time where they are aligned for it.
template <int E, class Body>
static __device__ void for_elements(int64_t size, Body body) {
  const Part p = part_of(size);
  for (int64_t i = p.begin + threadIdx.x * E; i + E <= p.end; i += kThreads * E)
    body(i, std::integral_constant<int, E>());
  if (E > 1)
    for (int64_t i = p.begin + (p.end - p.begin) / E * E + threadIdx.x; i < p.end; i += kThreads)
      body(i, std::integral_constant<int, 1>());
}

// M = mu M + g, x = U = mu M + g, and the sum of U's squares.
template <int E>
__global__ void __launch_bounds__(kThreads)
    momentum_kernel(const float* grad, float* m, bf16* x, double* squares, int64_t size, float mu,
                    const StepState* state) {
  if (state->skip) return;
  const float scale = state->grad_scale;
  const int64_t at = int64_t(blockIdx.y) * size;
  double sum = 0;
  for_elements<E>(size, [&]<int W>(int64_t i, std::integral_constant<int, W>) {
    float g[W], M[W], u[W];
    load(g, grad + at + i);
    load(M, m + at + i);
#pragma unroll
    for (int j = 0; j < W; ++j) {
      const float step = __fmul_rn(g[j], scale);
      M[j] = __fmaf_rn(mu, M[j], step);
      u[j] = __fmaf_rn(mu, M[j], step);
      sum += double(u[j]) * u[j];
    }
    store(m + at + i, M);
    store(x + at + i, u);
  });
  sum = block_sum(sum);
  if (threadIdx.x == 0) squares[blockIdx.y * kMuonParts + blockIdx.x] = sum;
}

// x /= its norm; zeros stay.
template <int E>
__global__ void __launch_bounds__(kThreads)
    normalise_kernel(bf16* x, const double* squares, int64_t size, const StepState* state) {
  if (state->skip) return;
  double sum = 0;
  for (int p = 0; p < kMuonParts; ++p) sum += squares[blockIdx.y * kMuonParts + p];
  const float scale = sum > 0 ? float(1 / sqrt(sum)) : 0;
  const int64_t at = int64_t(blockIdx.y) * size;
  for_elements<E>(size, [&]<int W>(int64_t i, std::integral_constant<int, W>) {
    float v[W];
    load(v, x + at + i);
#pragma unroll
    for (int j = 0; j < W; ++j) v[j] *= scale;
    store(x + at + i, v);
  });
}

// p -= lr (decay p + size of the update * o), and the copy.
template <int E>
__global__ void __launch_bounds__(kThreads)
    apply_kernel(float* param, bf16* copy, const bf16* o, int64_t size, double lr_scale,
                 float decay, float scale, const StepState* state) {
  if (state->skip) return;
  const float lr = float(double(state->lr) * lr_scale);
  const int64_t at = int64_t(blockIdx.y) * size;
  for_elements<E>(size, [&]<int W>(int64_t i, std::integral_constant<int, W>) {
    float p[W], x[W];
    load(p, param + at + i);
    load(x, o + at + i);
#pragma unroll
    for (int j = 0; j < W; ++j)
      p[j] = __fmaf_rn(-lr, __fmaf_rn(decay, p[j], __fmul_rn(scale, x[j])), p[j]);
    store(param + at + i, p);
    if (copy) store(copy + at + i, p);
  });
}

// y = a x + (b G + c G^2) x, G = x x^T; of tall matrices y = a x + x (b G + c G^2), G = x^T x.
static void iterate(const Context& ctx, const MuonScratch& s, const Tensor& x, const Tensor& y,
                    const Tensor& gram, const Tensor& poly) {
  const bool wide = x.dim(1) <= x.dim(2);
  const auto no = Transpose::no, yes = Transpose::yes;
  ctx.gemm->run(ctx, {wide ? no : yes, x, wide ? yes : no, x, 1, 0, gram, gram}, s.workspace);
  ctx.gemm->run(ctx, {no, gram, no, gram, kMuonC, kMuonB, gram, poly}, s.workspace);
  ctx.gemm->run(ctx, {no, wide ? poly : x, no, wide ? x : poly, 1, kMuonA, x, y}, s.workspace);
}

template <int E>
static void run_group(const Context& ctx, const Muon& a, const MuonScratch& s, int64_t b0,
                      int64_t count) {
  const int64_t m = a.param.dim(1), n = a.param.dim(2), size = m * n;
  const dim3 grid(kMuonParts, unsigned(count));
  Tensor x = s.x.rows(0, count), y = s.y.rows(0, count);
  momentum_kernel<E><<<grid, kThreads, 0, ctx.stream>>>(
      a.grad.rows(b0, count).as<float>(), a.m.rows(b0, count).as<float>(), x.as<bf16>(),
      s.squares.as<double>(), size, float(a.momentum), a.state);
  SLUICE_LAUNCHED(ctx.stream);
  normalise_kernel<E>
      <<<grid, kThreads, 0, ctx.stream>>>(x.as<bf16>(), s.squares.as<double>(), size, a.state);
  SLUICE_LAUNCHED(ctx.stream);
  for (int64_t step = 0; step < a.ns_steps; ++step) {
    iterate(ctx, s, x, y, s.gram.rows(0, count), s.poly.rows(0, count));
    std::swap(x, y);
  }
  apply_kernel<E><<<grid, kThreads, 0, ctx.stream>>>(
      a.param.rows(b0, count).as<float>(), a.copy ? a.copy.rows(b0, count).as<bf16>() : nullptr,
      x.as<bf16>(), size, a.lr_scale, float(a.weight_decay),
      float(0.2 * std::sqrt(double(std::max(m, n)))), a.state);
  SLUICE_LAUNCHED(ctx.stream);
}

void muon(const Context& ctx, const Muon& a, const MuonScratch& s) {
  const int64_t B = a.param.dim(0);
  if (a.param.numel() == 0) return;
  const auto flat = [](const Tensor& t) {
    return t ? t.reshape({t.dim(0), t.dim(1) * t.dim(2)}) : t;
  };
  const bool aligned =
      rows_aligned({flat(a.param), flat(a.grad), flat(a.m), flat(a.copy), flat(s.x)});
  for (int64_t b0 = 0; b0 < B; b0 += s.x.dim(0)) {
    const int64_t count = std::min(s.x.dim(0), B - b0);
    aligned ? run_group<8>(ctx, a, s, b0, count) : run_group<1>(ctx, a, s, b0, count);
  }
}

}  // namespace sluice::cuda
