// kernels/swiglu/reference.cpp -- plain loops in the order of the formula; never optimised.
#include <cmath>

#include "kernels/swiglu/swiglu.h"
#include "kernels/tensor/float_dispatch.h"

namespace sluice::reference {

void swiglu_forward(const Context&, const SwigluForward& a) {
  const int64_t F = a.y.dim(1);
  for_float_type(a.y, [&]<class T>(T) {
    for (int64_t n = 0; n < a.y.dim(0); ++n)
      for (int64_t f = 0; f < F; ++f) {
        const double g = a.gate_up.row<T>(n)[f], u = a.gate_up.row<T>(n)[F + f];
        a.y.row<T>(n)[f] = T(g / (1 + std::exp(-g)) * u);
      }
  });
}

void swiglu_backward(const Context& ctx, const SwigluBackward& a) {
  const int64_t F = a.dy.dim(1);
  if (a.y) reference::swiglu_forward(ctx, {.gate_up = a.gate_up, .y = a.y});
  for_float_type(a.dy, [&]<class T>(T) {
    for (int64_t n = 0; n < a.dy.dim(0); ++n)
      for (int64_t f = 0; f < F; ++f) {
        const double g = a.gate_up.row<T>(n)[f], u = a.gate_up.row<T>(n)[F + f];
        const double dy = a.dy.row<T>(n)[f], s = 1 / (1 + std::exp(-g));
        put(a.dgate_up.t.row<T>(n)[f], T(dy * u * s * (1 + g * (1 - s))), a.dgate_up.add);
        put(a.dgate_up.t.row<T>(n)[F + f], T(dy * g * s), a.dgate_up.add);
      }
  });
}

}  // namespace sluice::reference
