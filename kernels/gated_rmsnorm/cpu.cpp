// kernels/gated_rmsnorm/cpu.cpp -- blocks of tokens, SIMD along the channels of a head.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/base/fast_math.h"
#include "kernels/gated_rmsnorm/gated_rmsnorm.h"
#include "kernels/tensor/float_dispatch.h"
#include "kernels/tensor/lanes.h"

namespace sluice::cpu {

constexpr int64_t kRows = kGatedRmsNormBlockRows;

// y of one head of one token, from the norm's r; for both passes.
template <class T, class Args>
static void head_output(const Args& a, int64_t n, int64_t h, T r) {
  const int64_t C = a.x.dim(2);
  const T *x = a.x.template row<T>(n) + h * C, *w = a.w.template as<T>();
  T* y = a.y.template row<T>(n) + h * C;
  for (int64_t c = 0; c < C; ++c) y[c] = x[c] * r * w[c];
  if (!a.gate) return;
  const T* g = a.gate.template row<T>(n) + h * C;
  if (a.activation == GateActivation::sigmoid)
    for (int64_t c = 0; c < C; ++c) y[c] *= fast_sigmoid(g[c]);
  else
    for (int64_t c = 0; c < C; ++c) y[c] *= fast_silu(g[c]);
}

void gated_rmsnorm_forward(const Context& ctx, const GatedRmsNormForward& a) {
  const int64_t N = a.x.dim(0), H = a.x.dim(1), C = a.x.dim(2);
  for_float_type(a.x, [&]<class T>(T) {
    parallel_for(ctx, (N + kRows - 1) / kRows, [&](int64_t block) {
      for (int64_t n = block * kRows; n < std::min(N, (block + 1) * kRows); ++n)
        for (int64_t h = 0; h < H; ++h) {
          const T* x = a.x.row<T>(n) + h * C;
          const T sum = lane_sum<T>(C, [&](int64_t c) { return x[c] * x[c]; });
          const T r = 1 / std::sqrt(sum / T(C) + T(a.eps));
          a.rstd.row<T>(n)[h] = r;
          head_output(a, n, h, r);
        }
    });
  });
}

// One head of one token; e [C] is scratch, dw [C] a running sum.
template <class T>
static void head_backward(const GatedRmsNormBackward& a, int64_t n, int64_t h, T* e, T* dw) {
  const int64_t C = a.x.dim(2);
  const T *x = a.x.row<T>(n) + h * C, *dy = a.dy.row<T>(n) + h * C, *w = a.w.as<T>();
  const T r = a.rstd.row<T>(n)[h];
  if (a.y) head_output(a, n, h, r);
  if (a.gate) {
    const T* g = a.gate.row<T>(n) + h * C;
    T* dg = a.dgate.t.row<T>(n) + h * C;
    const bool swish = a.activation == GateActivation::swish;
    for_flag(swish, [=](auto is_swish) {
      for_flag(a.dgate.add, [=](auto add) {
        for (int64_t c = 0; c < C; ++c) {
          const T s = fast_sigmoid(g[c]);
          const T u = is_swish ? g[c] * s : s;
          const T slope = is_swish ? s * (1 + g[c] * (1 - s)) : s * (1 - s);
          e[c] = dy[c] * u;
          const T d = dy[c] * x[c] * r * w[c] * slope;
          dg[c] = add ? dg[c] + d : d;
        }
      });
    });
  } else {
    std::copy_n(dy, C, e);
  }
  const T dot = lane_sum<T>(C, [&](int64_t c) { return w[c] * e[c] * x[c]; });
  const T k = r * r * dot / T(C);
  T* dx = a.dx.t.row<T>(n) + h * C;
  for (int64_t c = 0; c < C; ++c) {
    const T d = r * (w[c] * e[c] - x[c] * k);
    dx[c] = a.dx.add ? dx[c] + d : d;
    dw[c] += e[c] * x[c] * r;
  }
}

void gated_rmsnorm_backward(const Context& ctx, const GatedRmsNormBackward& a, Tensor parts) {
  const int64_t N = a.x.dim(0), H = a.x.dim(1), C = a.x.dim(2), blocks = parts.dim(0);
  for_float_type(a.x, [&]<class T>(T) {
    parallel_for(ctx, blocks, [&](int64_t block) {
      std::vector<T> e(size_t(C), T(0));
      T* dw = parts.row<T>(block);
      std::fill_n(dw, C, T(0));
      for (int64_t n = block * kRows; n < std::min(N, (block + 1) * kRows); ++n)
        for (int64_t h = 0; h < H; ++h) head_backward<T>(a, n, h, e.data(), dw);
    });
    sum_parts(parts.as<T>(), blocks, C, a.dw.t.as<T>(), a.dw.add);
  });
}

}  // namespace sluice::cpu
