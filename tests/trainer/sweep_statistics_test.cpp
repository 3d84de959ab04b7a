// tests/trainer/sweep_statistics_test.cpp -- means, noise, power laws and matched widths against
// closed forms.
#include <gtest/gtest.h>

#include <cmath>

#include "trainer/sweep/match.h"
#include "trainer/sweep/statistics.h"

namespace sluice {
namespace {

// 1, 2, 3, 4, 5: variance 10 / 4, standard error sqrt(2.5 / 5).
TEST(SweepStatistics, MeanAndStandardError) {
  const double x[] = {5, 1, 3, 2, 4};
  const Mean m = mean_of(x);
  EXPECT_DOUBLE_EQ(m.mean, 3);
  EXPECT_DOUBLE_EQ(*m.standard_error, std::sqrt(0.5));
  EXPECT_EQ(m.n, 5);
  const Mean one = mean_of(std::span(x, 1));
  EXPECT_EQ(one.mean, 5);
  EXPECT_FALSE(one.standard_error);
}

TEST(SweepStatistics, TwoStandardErrorsOfTheDifferenceAreNoise) {
  const Mean a{.mean = 10, .standard_error = 3, .n = 4};
  const auto at = [](double mean) { return Mean{.mean = mean, .standard_error = 4, .n = 4}; };
  EXPECT_TRUE(within_noise(a, at(20)));  // 2 * sqrt(9 + 16) = 10
  EXPECT_TRUE(within_noise(a, at(0)));
  EXPECT_FALSE(within_noise(a, at(20.001)));
  EXPECT_FALSE(within_noise(at(-0.001), a));
  EXPECT_FALSE(within_noise(a, {.mean = 10, .standard_error = {}, .n = 1}));  // one seed: no claim
}

TEST(SweepStatistics, APowerLawIsFoundAgain) {
  std::vector<std::pair<double, double>> points;
  for (const double C : {1e12, 3e12, 2e13, 5e14})
    points.emplace_back(C, 7.25 * std::pow(C, -0.0625));
  const PowerLaw law = fit_power_law(points);
  EXPECT_NEAR(law.a, 7.25, 1e-11);
  EXPECT_NEAR(law.b, 0.0625, 1e-13);
  EXPECT_NEAR(*law.a_error, 0, 1e-11);
  EXPECT_NEAR(*law.b_error, 0, 1e-13);
}

// ln C = -1, 0, 1 and ln L = 1, 0, 1: slope 0 about the mean 2/3, residuals 1/3, -2/3, 1/3, their
// variance 2/3 with one degree of freedom: b +- sqrt(1/3), ln a +- sqrt(2/9).
TEST(SweepStatistics, StandardErrorsOfAFit) {
  const double e = std::exp(1.0);
  const std::pair<double, double> points[] = {{1 / e, e}, {1, 1}, {e, e}};
  const PowerLaw law = fit_power_law(points);
  EXPECT_NEAR(law.b, 0, 1e-15);
  EXPECT_NEAR(law.a, std::exp(2.0 / 3), 1e-14);
  EXPECT_NEAR(*law.b_error, std::sqrt(1.0 / 3), 1e-14);
  EXPECT_NEAR(*law.a_error, law.a * std::sqrt(2.0 / 9), 1e-14);
  // A mean of ln C that is 1, not 0, adds 1 / 2 to ln a's 1 / 3.
  const std::pair<double, double> moved[] = {{1, e}, {e, 1}, {e * e, e}};
  const PowerLaw beside = fit_power_law(moved);
  EXPECT_NEAR(*beside.a_error, beside.a * std::sqrt(2.0 / 3 * (1.0 / 3 + 1.0 / 2)), 1e-14);
}

TEST(SweepStatistics, TwoPointsHaveNoErrorAndOneHasNoLaw) {
  const std::pair<double, double> points[] = {{10, 4}, {1000, 2}};
  const PowerLaw law = fit_power_law(points);
  EXPECT_NEAR(law.b, std::log10(2.0) / 2, 1e-15);
  EXPECT_FALSE(law.a_error);
  EXPECT_FALSE(law.b_error);
  EXPECT_THROW(fit_power_law({points, 1}), Error);
  const std::pair<double, double> same[] = {{10, 4}, {10, 2}};
  EXPECT_THROW(fit_power_law(same), Error);
}

// count = 100 + 7 w, so the width is known, whatever the first guess.
TEST(SweepMatch, FindsTheNearestWidth) {
  const auto count = [](int64_t w) { return 100 + 7.0 * double(w); };
  for (const int64_t w : {1, 2, 3, 64, 65, 1000, 123457}) {
    EXPECT_EQ(solve_width(count, count(w), 1, 0.005).width, w);
    EXPECT_EQ(solve_width(count, count(w) + 3, 1, 0.1).width, w);
    EXPECT_EQ(solve_width(count, count(w) + 4, 1, 0.1).width, w + 1);
  }
  EXPECT_EQ(solve_width(count, count(999), 16, 0.01).width, 992);
  EXPECT_EQ(solve_width(count, count(1001), 16, 0.01).width, 1008);
  EXPECT_EQ(solve_width(count, 105, 1, 0.1).width, 1);
}

std::string error_of(const std::function<double(int64_t)>& count, double target, int64_t step) {
  try {
    solve_width(count, target, step, 0.005);
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

// 1000 is 4.76 % below.
TEST(SweepMatch, KeepsToTheTolerance) {
  const auto count = [](int64_t w) { return 100.0 * double(w); };
  EXPECT_EQ(solve_width(count, 1050, 1, 0.048).count, 1100);
  EXPECT_THROW(solve_width(count, 1050, 1, 0.047), Error);
}

TEST(SweepMatch, SaysWhyThereIsNoWidth) {
  EXPECT_EQ(error_of([](int64_t w) { return 100.0 * double(w); }, 1050, 1),
            "expected within 0.5 % of 1050; 10 gives 1000 (-4.762 %), 11 gives 1100 (+4.762 %)");
  EXPECT_EQ(error_of([](int64_t) { return 5.0; }, 6, 8), "it changes nothing: 8 and 16 give 5");
  EXPECT_EQ(error_of([](int64_t w) { return 100 + double(w); }, 50, 1),
            "expected within 0.5 % of 50; 1 gives 101 (+102.000 %), 1 gives 101 (+102.000 %)");
  EXPECT_NE(
      error_of([](int64_t w) { return 100 - 1 / double(w); }, 200, 1).find("no width reaches"),
      std::string::npos);
}

}  // namespace
}  // namespace sluice
