// tests/optim/schedule_test.cpp -- schedules at their boundaries, against closed forms.
#include "optim/schedule.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace sluice {
namespace {

constexpr double kLr = 0.5;
constexpr double kEps = 1e-15;  // a handful of roundings of numbers below 1

OptimConfig with(const char* kind, int64_t warmup, int64_t decay = 0, const char* shape = "linear",
                 double min_ratio = 0) {
  OptimConfig c;
  c.lr = kLr;
  c.schedule.kind = kind;
  c.schedule.warmup_steps = warmup;
  c.schedule.decay_steps = decay;
  c.schedule.decay = shape;
  c.schedule.min_lr_ratio = min_ratio;
  return c;
}

TEST(Schedule, WarmupIsLinearAndReachesTheRate) {
  for (const char* kind : {"wsd", "cosine", "constant"}) {
    const OptimConfig c = with(kind, 10);
    EXPECT_NEAR(lr_at(c, 1, 100), kLr * 0.1, kEps) << kind;
    EXPECT_NEAR(lr_at(c, 9, 100), kLr * 0.9, kEps) << kind;
    EXPECT_EQ(lr_at(c, 10, 100), kLr) << kind;
    EXPECT_EQ(lr_at(with(kind, 1), 1, 100), kLr) << kind;
  }
}

TEST(Schedule, NoWarmupStartsAtTheRate) {
  for (const char* kind : {"wsd", "constant"}) EXPECT_EQ(lr_at(with(kind, 0), 1, 100), kLr) << kind;
  // The cosine has done 1 of its 100 steps.
  EXPECT_NEAR(lr_at(with("cosine", 0), 1, 100), kLr * (1 + std::cos(M_PI / 100)) / 2, kEps);
}

TEST(Schedule, ConstantStays) {
  for (const int64_t step : {10, 11, 50, 100, 1000})
    EXPECT_EQ(lr_at(with("constant", 10, 30, "linear", 0.1), step, 100), kLr);
}

TEST(Schedule, WsdHoldsThenFalls) {
  const OptimConfig linear = with("wsd", 10, 20), root = with("wsd", 10, 20, "1-sqrt");
  for (const int64_t step : {10, 11, 80, 81}) {  // 80 steps are before the decay, 0 of it at 81
    EXPECT_EQ(lr_at(linear, step, 100), kLr) << step;
    EXPECT_EQ(lr_at(root, step, 100), kLr) << step;
  }
  for (const int64_t step : {82, 91, 99, 100}) {
    const double x = double(step - 81) / 20;
    EXPECT_NEAR(lr_at(linear, step, 100), kLr * (1 - x), kEps) << step;
    EXPECT_NEAR(lr_at(root, step, 100), kLr * (1 - std::sqrt(x)), kEps) << step;
  }
  EXPECT_GT(lr_at(root, 100, 100), 0);
  EXPECT_EQ(lr_at(root, 101, 100), 0);
  EXPECT_EQ(lr_at(root, 5000, 100), 0);  // never below
}

TEST(Schedule, WsdWithoutDecayHolds) {
  EXPECT_EQ(lr_at(with("wsd", 10, 0, "1-sqrt"), 100, 100), kLr);
}

TEST(Schedule, DecayEndsAtTheFloor) {
  const OptimConfig linear = with("wsd", 0, 4, "linear", 0.2);
  EXPECT_NEAR(lr_at(linear, 9, 10), kLr * (0.2 + 0.8 * 0.5), kEps);
  EXPECT_NEAR(lr_at(linear, 11, 10), kLr * 0.2, kEps);
  const OptimConfig cosine = with("cosine", 10, 0, "linear", 0.2);
  EXPECT_NEAR(lr_at(cosine, 110, 110), kLr * 0.2, kEps);
  EXPECT_NEAR(lr_at(cosine, 500, 110), kLr * 0.2, kEps);
}

TEST(Schedule, CosineFallsFromTheEndOfTheWarmup) {
  const OptimConfig c = with("cosine", 10);
  EXPECT_NEAR(lr_at(c, 60, 110), kLr / 2, kEps);  // half way
  EXPECT_NEAR(lr_at(c, 35, 110), kLr * (1 + std::sqrt(0.5)) / 2, kEps);
  EXPECT_NEAR(lr_at(c, 110, 110), 0, kEps);
}

// A run shorter than warm-up and decay together: no jump where one hands over to the other.
TEST(Schedule, OverlapTakesTheSmaller) {
  const OptimConfig c = with("wsd", 8, 8);
  double largest_jump = 0;
  for (int64_t step = 1; step <= 10; ++step) {
    const double rise = std::min(1.0, double(step) / 8);
    const double fall = 1 - std::max(0.0, double(step - 3) / 8);
    EXPECT_NEAR(lr_at(c, step, 10), kLr * std::min(rise, fall), kEps) << step;
    largest_jump = std::max(largest_jump, std::abs(lr_at(c, step + 1, 10) - lr_at(c, step, 10)));
  }
  EXPECT_LE(largest_jump, kLr / 8 + kEps);
}

TEST(Schedule, WarmupLongerThanTheRunOnlyRises) {
  for (const char* kind : {"cosine", "constant"})
    for (int64_t step = 1; step <= 5; ++step)
      EXPECT_NEAR(lr_at(with(kind, 10), step, 5), kLr * double(step) / 10, kEps) << kind << step;
}

}  // namespace
}  // namespace sluice
