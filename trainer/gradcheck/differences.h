// trainer/gradcheck/differences.h -- one directional derivative, both ways.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>

#include "kernels/tensor/rng.h"
#include "kernels/tensor/tensor.h"

namespace sluice {

// |numeric - analytic| / max(|numeric|, |analytic|, 1e-9) along a random direction; x, dx dense
// f64.
inline double directional_error(const std::function<double()>& loss, const Tensor& x,
                                const Tensor& dx, uint64_t seed) {
  const int64_t n = x.numel();
  double* value = x.as<double>();
  const double h = 2e-5;
  double analytic = 0;
  for (int64_t i = 0; i < n; ++i) analytic += dx.as<double>()[i] * random_normal(seed, uint64_t(i));
  auto shifted = [&](double by) {
    for (int64_t i = 0; i < n; ++i) value[i] += by * random_normal(seed, uint64_t(i));
    const double l = loss();
    for (int64_t i = 0; i < n; ++i) value[i] -= by * random_normal(seed, uint64_t(i));
    return l;
  };
  // Five points: a truncation error of O(h^4), where the norm of a short query bends the loss
  // sharply.
  const double numeric =
      (8 * (shifted(h) - shifted(-h)) - (shifted(2 * h) - shifted(-2 * h))) / (12 * h);
  return std::abs(numeric - analytic) / std::max({std::abs(numeric), std::abs(analytic), 1e-9});
}

}  // namespace sluice
