// kernels/grad_norm/reference.cpp -- one sum, element by element; never optimised.
#include <cmath>

#include "kernels/grad_norm/grad_norm.h"
#include "kernels/tensor/float_dispatch.h"

namespace sluice::reference {

void grad_norm(const Context&, const GradNorm& a, Tensor) {
  double sum = 0;
  for (const Tensor& g : a.grads)
    for_float_type(g, [&]<class T>(T) {
      for (int64_t i = 0; i < g.dim(0); ++i) sum += double(g.as<T>()[i]) * g.as<T>()[i];
    });
  *a.sum_of_squares.as<double>() = sum;
}

void clip_factor(const Context&, const ClipFactor& a) {
  const double norm = std::sqrt(*a.sum_of_squares.as<double>());
  a.state->grad_norm = float(norm);
  a.state->skip = !std::isfinite(norm);
  a.state->grad_scale = a.max_norm > 0 && norm > a.max_norm ? float(a.max_norm / norm) : 1;
}

}  // namespace sluice::reference
