// tests/kernels/cast_test.cpp -- rounding to bf16: ties to even, the ends of the range, NaN.
#include "kernels/cast/cast.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/op_problem.h"

namespace sluice::test {
namespace {

TEST(Cast, RoundsToNearestEven) {
  // bf16 has 8 significant bits: between 1 and 2 steps of 1/128.
  const std::pair<float, float> pairs[] = {{1, 1},
                                           {1 + 1.0F / 256, 1},               // a tie, to even
                                           {1 + 3.0F / 256, 1 + 2.0F / 128},  // a tie, to even
                                           {1 + 1.01F / 256, 1 + 1.0F / 128},
                                           {-1 - 3.0F / 256, -1 - 2.0F / 128},
                                           {0, 0},
                                           {3.4e38F, INFINITY},  // nearer to 2^128
                                           {-INFINITY, -INFINITY},
                                           {1.0e-40F, 1.010e-40F}};  // below the normal range
  for (const auto& [from, want] : pairs) {
    const Buffer x(DType::f32, {1}), y(DType::bf16, {1});
    *x.view().as<float>() = from;
    cast({}, {.from = x.view(), .to = y.view()});
    if (from == 1.0e-40F)
      EXPECT_NEAR(element(y.view(), 0), from, 0.5 * std::ldexp(1.0, -133));
    else
      EXPECT_EQ(element(y.view(), 0), want) << from;
  }
}

TEST(Cast, NanStaysNan) {
  for (const uint32_t bits : {0x7f800001u, 0x7fffffffu, 0xff800001u, 0xffffffffu}) {
    const Buffer x(DType::f32, {1}), y(DType::bf16, {1});
    std::memcpy(x.view().data, &bits, sizeof bits);
    cast({}, {.from = x.view(), .to = y.view()});
    EXPECT_TRUE(std::isnan(element(y.view(), 0))) << bits;
  }
}

TEST(Cast, ErrorsNameTheValues) {
  const Buffer x(DType::f32, {3}), y(DType::bf16, {2});
  expect_part(error_of([&] { cast({}, {.from = x.view(), .to = y.view()}); }),
              "to is bf16 [2] on cpu, expected bf16 [3]");
  expect_part(error_of([&] { cast({}, {.from = y.view(), .to = y.view()}); }),
              "from is bf16 [2] on cpu, expected f32 [2]");
}

}  // namespace
}  // namespace sluice::test
