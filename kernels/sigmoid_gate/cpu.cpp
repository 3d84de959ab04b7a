// kernels/sigmoid_gate/cpu.cpp -- SIMD along the row, blocks of rows.
#include <algorithm>

#include "kernels/base/fast_math.h"
#include "kernels/sigmoid_gate/sigmoid_gate.h"
#include "kernels/tensor/float_dispatch.h"

namespace sluice::cpu {

constexpr int64_t kRows = 64;

template <class Body>
static void for_rows(const Context& ctx, int64_t N, Body body) {
  parallel_for(ctx, (N + kRows - 1) / kRows, [&](int64_t block) {
    for (int64_t n = block * kRows; n < std::min(N, (block + 1) * kRows); ++n) body(n);
  });
}

void sigmoid_gate_forward(const Context& ctx, const SigmoidGateForward& a) {
  const int64_t C = a.x.dim(1);
  for_float_type(a.x, [&]<class T>(T) {
    for_rows(ctx, a.x.dim(0), [&](int64_t n) {
      const T *x = a.x.row<T>(n), *g = a.gate.row<T>(n);
      T* __restrict y = a.y.row<T>(n);
      for (int64_t c = 0; c < C; ++c) y[c] = x[c] * fast_sigmoid(g[c]);
    });
  });
}

void sigmoid_gate_backward(const Context& ctx, const SigmoidGateBackward& a) {
  const int64_t C = a.x.dim(1);
  for_float_type(a.x, [&]<class T>(T) {
    for_rows(ctx, a.x.dim(0), [&](int64_t n) {
      const T *x = a.x.row<T>(n), *g = a.gate.row<T>(n), *dy = a.dy.row<T>(n);
      // Two loops, dx first: the two may be one memory.
      T* __restrict dx = a.dx.t.row<T>(n);
      for_flag(a.dx.add, [=](auto add) {
        for (int64_t c = 0; c < C; ++c) {
          const T d = dy[c] * fast_sigmoid(g[c]);
          dx[c] = add ? dx[c] + d : d;
        }
      });
      T* __restrict dg = a.dgate.t.row<T>(n);
      for_flag(a.dgate.add, [=](auto add) {
        for (int64_t c = 0; c < C; ++c) {
          const T s = fast_sigmoid(g[c]), d = dy[c] * x[c] * s * (1 - s);
          dg[c] = add ? dg[c] + d : d;
        }
      });
    });
  });
}

}  // namespace sluice::cpu
