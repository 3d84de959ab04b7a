// kernels/rmsnorm/cpu.cpp -- blocks of rows, sums in SIMD lanes.
#include <algorithm>
#include <cmath>

#include "kernels/rmsnorm/rmsnorm.h"
#include "kernels/tensor/float_dispatch.h"
#include "kernels/tensor/lanes.h"

namespace sluice::cpu {

void rmsnorm_forward(const Context& ctx, const RmsNormForward& a) {
  const int64_t N = a.x.dim(0), C = a.x.dim(1), R = kRmsNormBlockRows;
  for_float_type(a.x, [&]<class T>(T) {
    parallel_for(ctx, (N + R - 1) / R, [&](int64_t block) {
      for (int64_t n = block * R; n < std::min(N, (block + 1) * R); ++n) {
        const T *x = a.x.row<T>(n), *w = a.w.as<T>();
        T* y = a.y.row<T>(n);
        const T sum = lane_sum<T>(C, [&](int64_t c) { return x[c] * x[c]; });
        const T r = 1 / std::sqrt(sum / T(C) + T(a.eps));
        for (int64_t c = 0; c < C; ++c) y[c] = x[c] * r * w[c];
        a.rstd.as<T>()[n] = r;
      }
    });
  });
}

void rmsnorm_backward(const Context& ctx, const RmsNormBackward& a, Tensor parts) {
  const int64_t N = a.x.dim(0), C = a.x.dim(1), R = kRmsNormBlockRows, blocks = parts.dim(0);
  for_float_type(a.x, [&]<class T>(T) {
    parallel_for(ctx, blocks, [&](int64_t block) {
      T* dw = parts.row<T>(block);
      std::fill_n(dw, C, T(0));
      for (int64_t n = block * R; n < std::min(N, (block + 1) * R); ++n) {
        const T *x = a.x.row<T>(n), *dy = a.dy.row<T>(n), *w = a.w.as<T>();
        T* dx = a.dx.t.row<T>(n);
        const T r = a.rstd.as<T>()[n];
        for (int64_t c = 0; a.y && c < C; ++c) a.y.row<T>(n)[c] = x[c] * r * w[c];
        const T dot = lane_sum<T>(C, [&](int64_t c) { return w[c] * dy[c] * x[c]; });
        const T k = r * r * dot / T(C);
        for (int64_t c = 0; c < C; ++c) {
          const T g = r * (w[c] * dy[c] - x[c] * k);
          dx[c] = a.dx.add ? dx[c] + g : g;
          dw[c] += dy[c] * x[c] * r;
        }
      }
    });
    sum_parts(parts.as<T>(), blocks, C, a.dw.t.as<T>(), a.dw.add);
  });
}

}  // namespace sluice::cpu
