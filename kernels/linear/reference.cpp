// kernels/linear/reference.cpp -- plain loops in the order of the formula; never optimised.
// Sums are in T and in index order, so that a row's result does not depend on the rows around it.
#include "kernels/linear/linear.h"
#include "kernels/tensor/float_dispatch.h"

namespace sluice::reference {

void linear_forward(const Context&, const LinearForward& a, const Tensor&) {
  for_float_type(a.x, [&]<class T>(T) {
    for (int64_t n = 0; n < a.x.dim(0); ++n)
      for (int64_t f = 0; f < a.w.dim(0); ++f) {
        T sum = 0;
        for (int64_t d = 0; d < a.x.dim(1); ++d) sum += a.x.row<T>(n)[d] * a.w.row<T>(f)[d];
        a.y.row<T>(n)[f] = sum;
      }
  });
}

void linear_backward(const Context&, const LinearBackward& a, const Tensor&) {
  const int64_t N = a.dy.dim(0), D = a.w.dim(1), F = a.w.dim(0);
  for_float_type(a.w, [&]<class T>(T) {
    for (int64_t n = 0; a.dx && n < N; ++n)
      for (int64_t d = 0; d < D; ++d) {
        T sum = 0;
        for (int64_t f = 0; f < F; ++f) sum += a.dy.row<T>(n)[f] * a.w.row<T>(f)[d];
        put(a.dx.t.row<T>(n)[d], sum, a.dx.add);
      }
    for (int64_t f = 0; a.dw && f < F; ++f)
      for (int64_t d = 0; d < D; ++d) {
        T sum = 0;
        for (int64_t n = 0; n < N; ++n) sum += a.dy.row<T>(n)[f] * a.x.row<T>(n)[d];
        put(a.dw.t.row<T>(f)[d], sum, a.dw.add);
      }
  });
}

}  // namespace sluice::reference
