// trainer/sweep/statistics.h -- means over seeds, what is no difference, and power laws.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace sluice {

// Of the values of n seeds.
struct Mean {
  double mean = 0;
  std::optional<double> standard_error;  // sd / sqrt(n), sd with n - 1; none for one seed
  int64_t n = 0;
};
Mean mean_of(std::span<const double> x);  // of at least one

// Not significant: two means of several seeds that are at most two standard errors of their
// difference, sqrt(se_a^2 + se_b^2), apart. Of a single seed nothing can be said: false.
bool within_noise(const Mean& a, const Mean& b);

// L = a C^-b by least squares of ln L = ln a - b ln C; standard errors from the residuals, with
// n - 2 degrees of freedom: none for two points.
struct PowerLaw {
  double a = 0, b = 0;
  std::optional<double> a_error, b_error;
};
PowerLaw fit_power_law(std::span<const std::pair<double, double>> points);  // (C, L), both above 0

}  // namespace sluice
