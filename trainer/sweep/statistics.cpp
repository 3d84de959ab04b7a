// trainer/sweep/statistics.cpp -- two-pass sums.
#include "trainer/sweep/statistics.h"

#include <cmath>

#include "kernels/base/check.h"

namespace sluice {

Mean mean_of(std::span<const double> x) {
  SLUICE_CHECK(!x.empty(), "a mean of no values");
  const double n = double(x.size());
  Mean m{.mean = 0, .standard_error = {}, .n = int64_t(x.size())};
  for (const double v : x) m.mean += v / n;
  if (x.size() < 2) return m;
  double squares = 0;
  for (const double v : x) squares += (v - m.mean) * (v - m.mean);
  m.standard_error = std::sqrt(squares / (n - 1) / n);
  return m;
}

bool within_noise(const Mean& a, const Mean& b) {
  if (!a.standard_error || !b.standard_error) return false;
  return std::fabs(a.mean - b.mean) <= 2 * std::hypot(*a.standard_error, *b.standard_error);
}

PowerLaw fit_power_law(std::span<const std::pair<double, double>> points) {
  SLUICE_CHECK(points.size() >= 2, "a power law needs two points, there are ", points.size());
  const double n = double(points.size());
  double mx = 0, my = 0;
  for (const auto& [C, L] : points) {
    SLUICE_CHECK(C > 0 && L > 0, "a power law through (", C, ", ", L, ")");
    mx += std::log(C) / n;
    my += std::log(L) / n;
  }
  double sxx = 0, sxy = 0;
  for (const auto& [C, L] : points) {
    sxx += (std::log(C) - mx) * (std::log(C) - mx);
    sxy += (std::log(C) - mx) * (std::log(L) - my);
  }
  SLUICE_CHECK(sxx > 0, "a power law through points of one C, ", points[0].first);
  const double slope = sxy / sxx, ln_a = my - slope * mx;
  PowerLaw law{.a = std::exp(ln_a), .b = -slope, .a_error = {}, .b_error = {}};
  if (points.size() < 3) return law;
  double squares = 0;
  for (const auto& [C, L] : points) {
    const double r = std::log(L) - ln_a - slope * std::log(C);
    squares += r * r;
  }
  const double variance = squares / (n - 2);
  law.b_error = std::sqrt(variance / sxx);
  law.a_error = law.a * std::sqrt(variance * (1 / n + mx * mx / sxx));  // of ln a, times da / dln a
  return law;
}

}  // namespace sluice
