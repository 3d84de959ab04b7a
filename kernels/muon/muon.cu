// kernels/muon/muon.cu -- passes over the elements, and cuBLASLt's strided batches between: bf16
// operands, f32 sums.
#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/base/cuda_check.h"
#include "kernels/device/reduce.cuh"
#include "kernels/device/rounding.cuh"
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

// body(i, E constant) over n elements by the whole grid.
template <int E, class Body>
static __device__ void for_grid(int64_t n, Body body) {
  const int64_t thread = int64_t(blockIdx.x) * kThreads + threadIdx.x,
                threads = int64_t(gridDim.x) * kThreads, whole = n / E * E;
  for (int64_t i = thread * E; i < whole; i += threads * E)
    body(i, std::integral_constant<int, E>());
  if (E > 1)
    for (int64_t i = whole + thread; i < n; i += threads) body(i, std::integral_constant<int, 1>());
}

// M = mu M + g, u = U.
template <int E, class S>
__global__ void __launch_bounds__(kThreads)
    momentum_kernel(const float* grad, S* m, bf16* u, int64_t n, float mu, StateRounding rounding,
                    const StepState* state) {
  if (state->skip) return;
  const float scale = state->grad_scale;
  for_grid<E>(n, [&]<int W>(int64_t i, std::integral_constant<int, W>) {
    float g[W], M[W], v[W];
    load(g, grad + i);
    load(M, m + i);
#pragma unroll
    for (int j = 0; j < W; ++j) {
      const float step = __fmul_rn(g[j], scale);
      M[j] = __fmaf_rn(mu, M[j], step);
      v[j] = __fmaf_rn(mu, M[j], step);
    }
    if constexpr (sizeof(S) == sizeof(bf16)) {
      uint32_t random[W];
      draw(random, rounding, i, state->step);
      store_rounded<0>(m + i, M, random);
    } else {
      store(m + i, M);
    }
    store(u + i, v);
  });
}

// The sum of x's squares, by parts.
template <int E>
__global__ void __launch_bounds__(kThreads)
    squares_kernel(const bf16* x, double* squares, int64_t size, const StepState* state) {
  if (state->skip) return;
  const int64_t at = int64_t(blockIdx.y) * size;
  double sum = 0;
  for_elements<E>(size, [&]<int W>(int64_t i, std::integral_constant<int, W>) {
    float v[W];
    load(v, x + at + i);
#pragma unroll
    for (int j = 0; j < W; ++j) sum += double(v[j]) * v[j];
  });
  sum = block_sum(sum);
  if (threadIdx.x == 0) squares[blockIdx.y * kMuonParts + blockIdx.x] = sum;
}

// to = x / its norm; zeros stay.
template <int E>
__global__ void __launch_bounds__(kThreads)
    normalise_kernel(const bf16* x, bf16* to, const double* squares, int64_t size,
                     const StepState* state) {
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
    store(to + at + i, v);
  });
}

// p -= lr (decay p + size of the update * x), and the copy.
template <int E>
__global__ void __launch_bounds__(kThreads)
    apply_kernel(float* param, bf16* copy, const bf16* x, int64_t n, double lr_scale, float decay,
                 float scale, const StepState* state) {
  if (state->skip) return;
  const float lr = float(double(state->lr) * lr_scale);
  for_grid<E>(n, [&]<int W>(int64_t i, std::integral_constant<int, W>) {
    float p[W], o[W];
    load(p, param + i);
    load(o, x + i);
#pragma unroll
    for (int j = 0; j < W; ++j)
      p[j] = __fmaf_rn(-lr, __fmaf_rn(decay, p[j], __fmul_rn(scale, o[j])), p[j]);
    store(param + i, p);
    if (copy) store(copy + i, p);
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

void muon_momentum(const Context& ctx, const MuonMomentum& a) {
  const int64_t n = a.grad.dim(0);
  if (n == 0) return;
  const bool narrow = a.m.dtype == DType::bf16;
  const bool wide = rows_aligned({a.grad, a.m, a.u}) && (!narrow || a.rounding.begin % 4 == 0);
  const auto run = [&](auto* m, const auto& kernel) {
    kernel<<<grid_for(wide ? (n + 7) / 8 : n, kThreads), kThreads, 0, ctx.stream>>>(
        a.grad.as<float>(), m, a.u.as<bf16>(), n, float(a.momentum), a.rounding, a.state);
    SLUICE_LAUNCHED(ctx.stream);
  };
  if (narrow)
    run(a.m.as<bf16>(), wide ? momentum_kernel<8, bf16> : momentum_kernel<1, bf16>);
  else
    run(a.m.as<float>(), wide ? momentum_kernel<8, float> : momentum_kernel<1, float>);
}

template <int E>
static void orthogonalize_group(const Context& ctx, const Orthogonalize& a, const MuonScratch& s,
                                Tensor x) {
  const int64_t count = x.dim(0), size = x.dim(1) * x.dim(2);
  const dim3 grid(kMuonParts, unsigned(count));
  Tensor y = s.y.rows(0, count);
  squares_kernel<E>
      <<<grid, kThreads, 0, ctx.stream>>>(x.as<bf16>(), s.squares.as<double>(), size, a.state);
  SLUICE_LAUNCHED(ctx.stream);
  const Tensor from = x;
  if (a.ns_steps % 2 == 1) std::swap(x, y);  // so that the last step ends in a.x
  normalise_kernel<E><<<grid, kThreads, 0, ctx.stream>>>(from.as<bf16>(), x.as<bf16>(),
                                                         s.squares.as<double>(), size, a.state);
  SLUICE_LAUNCHED(ctx.stream);
  for (int64_t step = 0; step < a.ns_steps; ++step) {
    iterate(ctx, s, x, y, s.gram.rows(0, count), s.poly.rows(0, count));
    std::swap(x, y);
  }
}

void orthogonalize(const Context& ctx, const Orthogonalize& a, const MuonScratch& s) {
  const int64_t B = a.x.dim(0);
  if (a.x.numel() == 0) return;
  const auto flat = [](const Tensor& t) { return t.reshape({t.dim(0), t.dim(1) * t.dim(2)}); };
  const bool aligned = rows_aligned({flat(a.x), flat(s.y)});
  for (int64_t b = 0; b < B; b += s.y.dim(0)) {
    const Tensor x = a.x.rows(b, std::min(s.y.dim(0), B - b));
    aligned ? orthogonalize_group<8>(ctx, a, s, x) : orthogonalize_group<1>(ctx, a, s, x);
  }
}

void muon_apply(const Context& ctx, const MuonApply& a) {
  const int64_t n = a.param.dim(0);
  if (n == 0) return;
  const bool wide = rows_aligned({a.param, a.copy, a.x});
  const auto kernel = wide ? apply_kernel<8> : apply_kernel<1>;
  kernel<<<grid_for(wide ? (n + 7) / 8 : n, kThreads), kThreads, 0, ctx.stream>>>(
      a.param.as<float>(), a.copy ? a.copy.as<bf16>() : nullptr, a.x.as<bf16>(), n, a.lr_scale,
      float(a.weight_decay), float(muon_size(a.longer)), a.state);
  SLUICE_LAUNCHED(ctx.stream);
}

}  // namespace sluice::cuda
