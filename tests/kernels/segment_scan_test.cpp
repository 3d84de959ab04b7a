// tests/kernels/segment_scan_test.cpp -- states between segments.
#include "kernels/segment_scan/segment_scan.h"

#include <gtest/gtest.h>

#include "tests/support/cpu_context.h"
#include "tests/support/gradcheck.h"
#include "tests/support/message.h"

namespace sluice::test {
namespace {

constexpr int64_t P = 4, HV = 2, K = 5, V = 3;

TEST(SegmentScan, FastPathIsTheDefinition) {
  for (const DType type : {DType::f32, DType::f64}) {
    const Buffer operators(type, {P, HV * K * (V + K)});
    fill_normal(operators.view(), 1);
    for (const bool reverse : {false, true})
      for (const auto& [first, count] :
           {std::pair<int64_t, int64_t>{0, 4}, {1, 2}, {3, 1}, {2, 0}}) {
        const Buffer want(type, {HV, K, V}), got(type, {HV, K, V});
        SegmentScan a{operators.view(), first, count, reverse, want.view()};
        segment_scan(CpuContext(Mode::reference), a);
        a.state = got.view();
        segment_scan(CpuContext(Mode::run), a);
        const ErrorStats e = compare(got.view(), want.view(), 50);
        EXPECT_LE(e.worst, 1) << e;
        for (int64_t i = 0; count == 0 && i < got.view().numel(); ++i)
          EXPECT_EQ(element(got.view(), i), 0);
      }
  }
}

// S -> A S + B after one another; what A the first one has does not count.
TEST(SegmentScan, ComposesInOrder) {
  const Buffer operators(DType::f64, {2, 1 * 2 * (1 + 2)}), state(DType::f64, {1, 2, 1});
  const double values[2][6] = {{3, 5, NAN, NAN, NAN, NAN}, {100, 200, 1, 2, 0, 4}};
  std::copy_n(&values[0][0], 12, operators.view().as<double>());
  segment_scan(CpuContext(), {operators.view(), 0, 2, false, state.view()});
  EXPECT_EQ(state.view().as<double>()[0], 100 + 3 + 2 * 5);
  EXPECT_EQ(state.view().as<double>()[1], 200 + 4 * 5);
  std::copy_n(values[0], 6, operators.view().row<double>(1));
  std::copy_n(values[1], 6, operators.view().row<double>(0));
  segment_scan(CpuContext(), {operators.view(), 0, 2, true, state.view()});
  EXPECT_EQ(state.view().as<double>()[0], 100 + 3);
  EXPECT_EQ(state.view().as<double>()[1], 200 + 2 * 3 + 4 * 5);
}

TEST(SegmentScan, BrokenContractsNameTheValues) {
  const Buffer operators(DType::f64, {P, HV * K * (V + K)}), state(DType::f64, {HV, K, V});
  const CpuContext cpu;
  expect_message(
      [&] {
        segment_scan(cpu, {operators.view(), 3, 2, false, state.view()});
      },
      "segments 3 to 5 of 4");
  const Buffer narrow(DType::f64, {P, 9});
  expect_message(
      [&] {
        segment_scan(cpu, {narrow.view(), 0, 1, false, state.view()});
      },
      "operators is f64 [4, 9]");
}

}  // namespace
}  // namespace sluice::test
