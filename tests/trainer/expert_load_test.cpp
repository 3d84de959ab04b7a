// tests/trainer/expert_load_test.cpp -- the figures of a step's expert loads.
#include "trainer/metrics/expert_load.h"

#include <gtest/gtest.h>

#include "kernels/tensor/buffer.h"

namespace sluice {
namespace {

TEST(ExpertLoad, Figures) {
  Buffer counts(DType::i64, {3, 4});
  const int64_t c[] = {2, 2, 2, 2, 7, 1, 0, 0, 0, 0, 0, 0};  // even, uneven, a step without tokens
  std::copy(std::begin(c), std::end(c), counts.view().as<int64_t>());
  const ExpertLoad load = expert_load(counts.view());
  EXPECT_DOUBLE_EQ(load.worst, 3.5);
  EXPECT_DOUBLE_EQ(load.mean, (1 + 3.5 + 1) / 3);
  EXPECT_EQ(load.idle, 6);
  EXPECT_EQ(load.experts, 12);
  EXPECT_EQ(to_string(load), "max/mean 1.83 (worst layer 3.50), idle experts 6 of 12");
}

}  // namespace
}  // namespace sluice
