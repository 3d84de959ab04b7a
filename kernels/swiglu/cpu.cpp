// kernels/swiglu/cpu.cpp -- SIMD along the row, blocks of rows.
#include <algorithm>

#include "kernels/base/fast_math.h"
#include "kernels/swiglu/swiglu.h"
#include "kernels/tensor/float_dispatch.h"

namespace sluice::cpu {

constexpr int64_t kRows = 64;

template <class T>
static void forward_row(const T* __restrict g, int64_t F, T* __restrict y) {
  const T* __restrict u = g + F;
  for (int64_t f = 0; f < F; ++f) y[f] = fast_silu(g[f]) * u[f];
}

void swiglu_forward(const Context& ctx, const SwigluForward& a) {
  const int64_t N = a.y.dim(0), F = a.y.dim(1);
  for_float_type(a.y, [&]<class T>(T) {
    parallel_for(ctx, (N + kRows - 1) / kRows, [&](int64_t block) {
      for (int64_t n = block * kRows; n < std::min(N, (block + 1) * kRows); ++n)
        forward_row(a.gate_up.row<T>(n), F, a.y.row<T>(n));
    });
  });
}

void swiglu_backward(const Context& ctx, const SwigluBackward& a) {
  const int64_t N = a.dy.dim(0), F = a.dy.dim(1);
  for_float_type(a.dy, [&]<class T>(T) {
    parallel_for(ctx, (N + kRows - 1) / kRows, [&](int64_t block) {
      for (int64_t n = block * kRows; n < std::min(N, (block + 1) * kRows); ++n) {
        const T* __restrict g = a.gate_up.row<T>(n), * __restrict u = g + F;
        const T* __restrict dy = a.dy.row<T>(n);
        if (a.y) forward_row(g, F, a.y.row<T>(n));
        T* __restrict dg = a.dgate_up.t.row<T>(n), * __restrict du = dg + F;
        for_flag(a.dgate_up.add, [=](auto add) {
          for (int64_t f = 0; f < F; ++f) {
            const T s = fast_sigmoid(g[f]);
            const T for_g = dy[f] * u[f] * s * (1 + g[f] * (1 - s)), for_u = dy[f] * g[f] * s;
            dg[f] = add ? dg[f] + for_g : for_g;
            du[f] = add ? du[f] + for_u : for_u;
          }
        });
      }
    });
  });
}

}  // namespace sluice::cpu
