// kernels/rmsnorm/reference.cpp -- plain loops in the order of the formula; never optimised. Sums
// in f64.
#include <cmath>
#include <vector>

#include "kernels/rmsnorm/rmsnorm.h"
#include "kernels/tensor/float_dispatch.h"

namespace sluice::reference {

void rmsnorm_forward(const Context&, const RmsNormForward& a) {
  const int64_t N = a.x.dim(0), C = a.x.dim(1);
  for_float_type(a.x, [&]<class T>(T) {
    for (int64_t n = 0; n < N; ++n) {
      const T* x = a.x.row<T>(n);
      double sum = 0;
      for (int64_t c = 0; c < C; ++c) sum += double(x[c]) * x[c];
      const double r = 1 / std::sqrt(sum / double(C) + a.eps);
      a.rstd.as<T>()[n] = T(r);
      for (int64_t c = 0; c < C; ++c)
        a.y.row<T>(n)[c] = T(x[c] * double(a.rstd.as<T>()[n]) * a.w.as<T>()[c]);
    }
  });
}

void rmsnorm_backward(const Context&, const RmsNormBackward& a, Tensor) {
  const int64_t N = a.x.dim(0), C = a.x.dim(1);
  for_float_type(a.x, [&]<class T>(T) {
    std::vector<double> dw(size_t(C), 0);
    for (int64_t n = 0; n < N; ++n) {
      const T *x = a.x.row<T>(n), *dy = a.dy.row<T>(n), *w = a.w.as<T>();
      const double r = a.rstd.as<T>()[n];
      for (int64_t c = 0; a.y && c < C; ++c) a.y.row<T>(n)[c] = T(x[c] * r * w[c]);
      double mean = 0;  // mean_c(w * dy * x)
      for (int64_t c = 0; c < C; ++c) mean += double(w[c]) * dy[c] * x[c] / double(C);
      for (int64_t c = 0; c < C; ++c) {
        put(a.dx.t.row<T>(n)[c], T(r * (double(w[c]) * dy[c] - x[c] * r * r * mean)), a.dx.add);
        dw[size_t(c)] += double(dy[c]) * x[c] * r;
      }
    }
    for (int64_t c = 0; c < C; ++c) put(a.dw.t.as<T>()[c], T(dw[size_t(c)]), a.dw.add);
  });
}

}  // namespace sluice::reference
