// tests/kernels/stochastic_test.cpp -- rounding to bf16 has the right mean, and its random bits are
// a function of key, step and element alone.
#include "kernels/tensor/stochastic.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>
#include <vector>

#include "kernels/tensor/rng.h"
#include "kernels/tensor/rounding_blocks.h"

namespace sluice {
namespace {

float from_bits(uint32_t bits) {
  float f;
  std::memcpy(&f, &bits, sizeof f);
  return f;
}

// Of 65536 equally likely random numbers: the mean is x itself, in every binade, below the normal
// numbers too, and at both signs.
TEST(Stochastic, TheMeanOverAllRandomBitsIsExact) {
  for (const float x : {1.0F, 1.001F, -1.999F, 3.14159F, 1e-30F, -7.7e20F, 1e-40F, 0.0F, 2e-45F}) {
    double sum = 0;
    float low = INFINITY, high = -INFINITY;
    for (uint32_t r = 0; r < 65536; ++r) {
      const float y = widen_bf16(round_stochastic(x, r));
      sum += double(y);
      low = std::min(low, y), high = std::max(high, y);
    }
    EXPECT_NEAR(sum / 65536, double(x), std::abs(double(x)) * 1e-12) << x;
    EXPECT_LE(low, x);
    EXPECT_GE(high, x);
    uint32_t a, b;  // neighbours, or one number
    std::memcpy(&a, &low, 4), std::memcpy(&b, &high, 4);
    EXPECT_LE(std::max(a, b) - std::min(a, b), 0x10000u) << x;
  }
}

// n draws of a Bernoulli variable: within 5 standard errors for all of 200 numbers (1e-4 would be
// outside by chance).
TEST(Stochastic, TheMeanOfDrawnBitsIsTheNumber) {
  const int64_t n = 20000;
  for (uint64_t k = 0; k < 200; ++k) {
    const auto x = float(random_normal(7, k));
    const float low = widen_bf16(round_stochastic(x, 0)),
                high = widen_bf16(round_stochastic(x, 0xffff));
    double sum[2] = {0, 0};  // low and high half
    for (int64_t e = 0; e < n; ++e) {
      const uint32_t r = rounding_bits(11, e, int64_t(k));
      sum[0] += double(widen_bf16(round_stochastic(x, r & 0xffff)));
      sum[1] += double(widen_bf16(round_stochastic(x, r >> 16)));
    }
    const double p = high == low ? 0 : double((x - low) / (high - low));
    const double error = std::abs(double(high - low)) * std::sqrt(p * (1 - p) / double(n));
    for (const double s : sum) EXPECT_NEAR(s / double(n), double(x), 5 * error + 1e-12) << x;
  }
}

TEST(Stochastic, WhatIsBf16StaysAndNothingBecomesNan) {
  for (uint32_t b = 0; b < 65536; ++b)
    for (const uint32_t r : {0u, 1u, 0x8000u, 0xffffu}) {
      const float x = from_bits(b << 16);
      const uint16_t y = round_stochastic(x, r);
      if (std::isnan(x))
        EXPECT_TRUE(std::isnan(widen_bf16(y)));
      else
        EXPECT_EQ(y, b) << x;
    }
  const float inf = std::numeric_limits<float>::infinity();
  EXPECT_EQ(widen_bf16(round_stochastic(inf, 0xffff)), inf);
  EXPECT_EQ(widen_bf16(round_stochastic(std::numeric_limits<float>::max(), 0xffff)), inf);
  EXPECT_TRUE(std::isnan(widen_bf16(round_stochastic(from_bits(0x7fffffffu), 0xffff))));
  EXPECT_TRUE(std::isnan(widen_bf16(round_stochastic(from_bits(0x7f800001u), 0))));  // payload low
}

// One word an element and step, all of them different, whatever the cut.
TEST(Stochastic, BitsAreOfKeyStepAndElement) {
  std::set<uint32_t> seen;
  for (uint64_t key : {1u, 2u})
    for (int64_t step : {1, 2})
      for (int64_t e = 0; e < 1000; ++e) seen.insert(rounding_bits(key, e, step));
  EXPECT_GE(seen.size(), 3998u);  // two of 4000 equal ones: once in 500 such tests
  const int64_t far = (int64_t(1) << 40) + 3;
  RoundingBlock block;
  for (const int64_t begin : {int64_t(0), int64_t(1), int64_t(2), int64_t(3), far})
    for (const int64_t n : {1, 2, 3, 4, 5, 255, 256}) {
      const uint32_t* r = block.draw({.key = 9, .begin = begin}, 5, n, 77);
      for (int64_t i = 0; i < n; ++i)
        ASSERT_EQ(r[i], rounding_bits(9, begin + 5 + i, 77)) << begin << " " << n << " " << i;
    }
}

}  // namespace
}  // namespace sluice
