// kernels/sigmoid_gate/reference.cpp -- plain loops in the order of the formula; never optimised.
#include <cmath>

#include "kernels/sigmoid_gate/sigmoid_gate.h"
#include "kernels/tensor/float_dispatch.h"

namespace sluice::reference {

void sigmoid_gate_forward(const Context&, const SigmoidGateForward& a) {
  for_float_type(a.x, [&]<class T>(T) {
    for (int64_t n = 0; n < a.x.dim(0); ++n)
      for (int64_t c = 0; c < a.x.dim(1); ++c)
        a.y.row<T>(n)[c] =
            T(double(a.x.row<T>(n)[c]) / (1 + std::exp(-double(a.gate.row<T>(n)[c]))));
  });
}

void sigmoid_gate_backward(const Context&, const SigmoidGateBackward& a) {
  for_float_type(a.x, [&]<class T>(T) {
    for (int64_t n = 0; n < a.x.dim(0); ++n)
      for (int64_t c = 0; c < a.x.dim(1); ++c) {
        const double dy = a.dy.row<T>(n)[c], s = 1 / (1 + std::exp(-double(a.gate.row<T>(n)[c])));
        put(a.dx.t.row<T>(n)[c], T(dy * s), a.dx.add);
        put(a.dgate.t.row<T>(n)[c], T(dy * a.x.row<T>(n)[c] * s * (1 - s)), a.dgate.add);
      }
  });
}

}  // namespace sluice::reference
