// tests/support/gradcheck.h -- is <dy, J v> == <J^T dy, v>, for a random direction v, in f64?
// Costs two forwards a direction, where a full Jacobian costs two for every element.
#pragma once

#include <cstring>
#include <functional>

#include "kernels/tensor/rng.h"
#include "tests/support/error.h"

namespace sluice::test {

// Fills any float tensor, strided rows too, with N(mean, stddev^2); a pure function of the seed.
inline void fill_normal(const Tensor& t, uint64_t seed, double stddev = 1, double mean = 0) {
  for (int64_t i = 0; i < t.numel(); ++i)
    set_element(t, i, mean + stddev * random_normal(seed, uint64_t(i)));
}
inline void fill(const Tensor& t, double value) {
  for (int64_t i = 0; i < t.numel(); ++i) set_element(t, i, value);
}

inline double dot(const Tensor& a, const Tensor& b) {
  double s = 0;
  for (int64_t i = 0; i < a.numel(); ++i) s += element(a, i) * element(b, i);
  return s;
}

// Relative disagreement of the analytic gradient `dx` with central differences of loss(x), f64,
// along one random direction. Truncation error is O(h^2), rounding O(eps / h): both near 1e-10.
inline double gradcheck(const std::function<double()>& loss, const Tensor& x, const Tensor& dx,
                        uint64_t seed, double h = 1e-5) {
  SLUICE_CHECK(x.dtype == DType::f64 && x.numel() == dx.numel(), to_string(x), ", ", to_string(dx));
  const int64_t n = x.numel();
  auto shift = [&](double by) {
    for (int64_t i = 0; i < n; ++i)
      set_element(x, i, element(x, i) + by * random_normal(seed, uint64_t(i)));
  };
  shift(+h);
  const double up = loss();
  shift(-2 * h);
  const double down = loss();
  shift(+h);

  double analytic = 0;
  for (int64_t i = 0; i < n; ++i) analytic += element(dx, i) * random_normal(seed, uint64_t(i));
  const double numeric = (up - down) / (2 * h);
  return std::abs(numeric - analytic) / std::max({std::abs(numeric), std::abs(analytic), 1e-12});
}

inline bool same_bits(const Tensor& a, const Tensor& b) {
  return a.bytes() == b.bytes() && std::memcmp(a.data, b.data, size_t(a.bytes())) == 0;
}

}  // namespace sluice::test
