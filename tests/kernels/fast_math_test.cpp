// tests/kernels/fast_math_test.cpp -- fast_exp and its kin against f64, over the whole range of
// f32.
#include "kernels/base/fast_math.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <limits>

namespace sluice {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Distance in units of the last place of `want`, the spacing of subnormals at least.
double ulps(float got, double want) {
  const double max = double(std::numeric_limits<float>::max());
  if (std::isinf(got) || std::abs(want) > max)  // overflow may come one ulp early
    return got > 0 && want > max * (1 - 1e-6) ? 0 : HUGE_VAL;
  int exponent = 0;
  std::frexp(want, &exponent);
  return std::abs(double(got) - want) / std::ldexp(1.0, std::max(exponent - 24, -149));
}

struct Worst {
  double ulps = 0;
  float at = 0;
};

// Every 251st bit pattern of f32 from -limit to limit: 17 million for the whole range.
Worst sweep(float limit, const std::function<float(float)>& got,
            const std::function<double(double)>& want) {
  Worst worst;
  for (uint64_t bits = 0; bits < (uint64_t(1) << 32); bits += 251) {
    const uint32_t b = uint32_t(bits);
    float x;
    std::memcpy(&x, &b, sizeof x);
    if (!(std::abs(x) <= limit)) continue;
    const double u = ulps(got(x), want(double(x)));
    if (!(u <= worst.ulps)) worst = {.ulps = u, .at = x};
  }
  return worst;
}

// The promise of fast_math.h.
TEST(FastExp, WithinTwoUlpsEverywhere) {
  const Worst w = sweep(
      kInfinity, [](float x) { return fast_exp(x); }, [](double x) { return std::exp(x); });
  EXPECT_LE(w.ulps, 2) << "at " << w.at;
  RecordProperty("worst_ulps", std::to_string(w.ulps));
}

// All floats near both ends, where the exponent is put in by two factors.
TEST(FastExp, WithinTwoUlpsAtTheEnds) {
  for (auto [from, to] :
       {std::pair<float, float>{-104.5f, -102.0f}, {-87.5f, -87.2f}, {88.5f, 89.5f}})
    for (float x = from; x < to; x = std::nextafter(x, kInfinity))
      ASSERT_LE(ulps(fast_exp(x), std::exp(double(x))), 2) << x;
}

TEST(FastExp, SpecialValues) {
  EXPECT_EQ(fast_exp(0.0f), 1);
  EXPECT_EQ(fast_exp(-0.0f), 1);
  EXPECT_EQ(fast_exp(-kInfinity), 0);
  EXPECT_EQ(fast_exp(-1e30f), 0);
  EXPECT_EQ(fast_exp(-104.0f), 0);
  EXPECT_GT(fast_exp(-103.0f), 0);  // subnormal: 1.4e-45
  EXPECT_EQ(fast_exp(kInfinity), kInfinity);
  EXPECT_EQ(fast_exp(1e30f), kInfinity);
  EXPECT_TRUE(std::isnan(fast_exp(kNan)));
  EXPECT_TRUE(std::isnan(fast_exp(-kNan)));
}

TEST(FastExp, DoubleIsTheLibrarys) {
  for (double x : {-800.0, -1.5, 0.0, 0.3, 700.0}) EXPECT_EQ(fast_exp(x), std::exp(x));
}

TEST(FastSigmoid, CloseEverywhere) {
  // Two ulps of exp, half of the sum (one in the quotient's finer spacing), half of the division.
  // Below -87 exp(-x) nears overflow and the quotient leaves the normal range: bounded absolutely.
  const Worst w = sweep(
      87, [](float x) { return fast_sigmoid(x); }, [](double x) { return 1 / (1 + std::exp(-x)); });
  EXPECT_LE(w.ulps, 4) << "at " << w.at;
  for (float x : {-87.5f, -89.0f, -104.0f, -1e30f, -kInfinity}) {
    EXPECT_GE(fast_sigmoid(x), 0) << x;
    EXPECT_LT(fast_sigmoid(x), 2e-38f) << x;  // exp(-87.5) = 1e-38
  }
  for (float x : {87.5f, 104.0f, 1e30f, kInfinity}) EXPECT_EQ(fast_sigmoid(x), 1) << x;
  EXPECT_TRUE(std::isnan(fast_sigmoid(kNan)));
}

TEST(FastSilu, CloseEverywhere) {
  const Worst w = sweep(
      87, [](float x) { return fast_silu(x); }, [](double x) { return x / (1 + std::exp(-x)); });
  EXPECT_LE(w.ulps, 5) << "at " << w.at;  // sigmoid, and one product more
  EXPECT_EQ(fast_silu(-1e30f), 0);
  EXPECT_EQ(fast_silu(1e30f), 1e30f);
  EXPECT_TRUE(std::isnan(fast_silu(kNan)));
}

TEST(FastSoftplus, CloseEverywhere) {
  // u = exp(-|x|) within 2 ulps; the quotient, the square and the products add about as much again.
  const Worst w = sweep(
      87, [](float x) { return fast_softplus(x); },
      [](double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x))); });
  EXPECT_LE(w.ulps, 6) << "at " << w.at;
  EXPECT_EQ(fast_softplus(1e30f), 1e30f);
  EXPECT_EQ(fast_softplus(-1e30f), 0);
  EXPECT_TRUE(std::isnan(fast_softplus(kNan)));
}

}  // namespace
}  // namespace sluice
