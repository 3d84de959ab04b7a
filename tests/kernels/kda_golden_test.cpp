// tests/kernels/kda_golden_test.cpp -- KDA against flash-linear-attention's naive recurrence and
// its gradients by autograd (tests/golden/fla, make.py wrote them).
//
//   ctest -R KdaGolden -V        prints the worst differences
#include <gtest/gtest.h>

#include "tests/kernels/fla_golden.h"
#include "tests/kernels/kda_problem.h"

namespace sluice::test {
namespace {

KdaShape shape_of(const SafetensorsReader& file) {
  const std::vector<int64_t> q = file.find("q")->shape, v = file.find("v")->shape;
  const bool bounded = file.metadata().at("law") == "bounded";
  return {.H = q[1],
          .HV = v[1],
          .K = q[2],
          .V = v[2],
          .cu = {0, int32_t(q[0])},
          .params = {bounded ? GateLaw::bounded : GateLaw::softplus, -5, 1}};
}

class KdaGolden : public testing::TestWithParam<const char*> {
 protected:
  void expect_agreement(Mode mode, DType type, const GoldenBounds& bounds) {
    const SafetensorsReader file(fla_golden(GetParam()));
    KdaProblem p(shape_of(file), type);
    expect_golden(p, file, GetParam(), mode, bounds);
  }
};

TEST_P(KdaGolden, ChunkedF64) {
  expect_agreement(Mode::run, DType::f64, kStored);
}
TEST_P(KdaGolden, RecurrentF64) {
  expect_agreement(Mode::reference, DType::f64, kStored);
}
TEST_P(KdaGolden, ChunkedF32) {
  expect_agreement(Mode::run, DType::f32, kSingle);
}

INSTANTIATE_TEST_SUITE_P(Cases, KdaGolden,
                         testing::Values("softplus_slow", "softplus_fast", "softplus_grouped",
                                         "bounded", "bounded_slow_grouped", "bounded_one_token"),
                         [](const auto& p) { return std::string(p.param); });

}  // namespace
}  // namespace sluice::test
