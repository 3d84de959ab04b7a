// kernels/gated_rmsnorm/reference.cpp -- plain loops in the order of the formula; never optimised.
// In f64.
#include <cmath>
#include <vector>

#include "kernels/gated_rmsnorm/gated_rmsnorm.h"
#include "kernels/tensor/float_dispatch.h"

namespace sluice::reference {

static double act(double g, GateActivation kind) {
  const double s = 1 / (1 + std::exp(-g));
  return kind == GateActivation::sigmoid ? s : g * s;
}
static double act_slope(double g, GateActivation kind) {
  const double s = 1 / (1 + std::exp(-g));
  return kind == GateActivation::sigmoid ? s * (1 - s) : s * (1 + g * (1 - s));
}

// y of one head of one token; for both passes.
template <class T, class Args>
static void head_output(const Args& a, int64_t n, int64_t h, double r) {
  const int64_t C = a.x.dim(2);
  for (int64_t c = 0; c < C; ++c) {
    const double u = a.gate ? act(a.gate.template row<T>(n)[h * C + c], a.activation) : 1;
    a.y.template row<T>(n)[h * C + c] =
        T(a.x.template row<T>(n)[h * C + c] * r * a.w.template as<T>()[c] * u);
  }
}

void gated_rmsnorm_forward(const Context&, const GatedRmsNormForward& a) {
  const int64_t N = a.x.dim(0), H = a.x.dim(1), C = a.x.dim(2);
  for_float_type(a.x, [&]<class T>(T) {
    for (int64_t n = 0; n < N; ++n)
      for (int64_t h = 0; h < H; ++h) {
        const T* x = a.x.row<T>(n) + h * C;
        double sum = 0;
        for (int64_t c = 0; c < C; ++c) sum += double(x[c]) * x[c];
        const double r = 1 / std::sqrt(sum / double(C) + a.eps);
        head_output<T>(a, n, h, T(r));
        a.rstd.row<T>(n)[h] = T(r);
      }
  });
}

void gated_rmsnorm_backward(const Context&, const GatedRmsNormBackward& a, Tensor) {
  const int64_t N = a.x.dim(0), H = a.x.dim(1), C = a.x.dim(2);
  for_float_type(a.x, [&]<class T>(T) {
    std::vector<double> dw(size_t(C), 0), e(size_t(C), 0);
    const T* w = a.w.as<T>();
    for (int64_t n = 0; n < N; ++n)
      for (int64_t h = 0; h < H; ++h) {
        const T *x = a.x.row<T>(n) + h * C, *dy = a.dy.row<T>(n) + h * C;
        const double r = a.rstd.row<T>(n)[h];
        if (a.y) head_output<T>(a, n, h, r);
        double mean = 0;
        for (int64_t c = 0; c < C; ++c) {
          const double g = a.gate ? double(a.gate.row<T>(n)[h * C + c]) : 0;
          e[size_t(c)] = dy[c] * (a.gate ? act(g, a.activation) : 1);
          mean += double(w[c]) * e[size_t(c)] * x[c] / double(C);
          if (a.gate)
            put(a.dgate.t.row<T>(n)[h * C + c],
                T(double(dy[c]) * x[c] * r * w[c] * act_slope(g, a.activation)), a.dgate.add);
        }
        for (int64_t c = 0; c < C; ++c) {
          put(a.dx.t.row<T>(n)[h * C + c], T(r * (w[c] * e[size_t(c)] - x[c] * r * r * mean)),
              a.dx.add);
          dw[size_t(c)] += e[size_t(c)] * x[c] * r;
        }
      }
    for (int64_t c = 0; c < C; ++c) put(a.dw.t.as<T>()[c], T(dw[size_t(c)]), a.dw.add);
  });
}

}  // namespace sluice::reference
