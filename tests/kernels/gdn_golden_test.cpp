// tests/kernels/gdn_golden_test.cpp -- Gated DeltaNet and Mamba2's recurrence against
// flash-linear-attention's naive ones and their gradients by autograd (tests/golden/fla).
//
//   ctest -R GdnGolden -V        prints the worst differences
#include <gtest/gtest.h>

#include "tests/kernels/fla_golden.h"
#include "tests/kernels/gdn_problem.h"

namespace sluice::test {
namespace {

class GdnGolden : public testing::TestWithParam<const char*> {
 protected:
  void expect_agreement(Mode mode, DType type, const GoldenBounds& bounds) {
    const SafetensorsReader file(fla_golden(GetParam()));
    const std::vector<int64_t> q = file.find("q")->shape, v = file.find("v")->shape;
    GdnShape shape{
        .H = q[1], .HV = v[1], .K = q[2], .V = v[2], .cu = {0, int32_t(q[0])}, .params = {}};
    shape.params.delta_rule = file.metadata().at("law") == "gdn";
    GdnProblem p(shape, type);
    expect_golden(p, file, GetParam(), mode, bounds);
  }
};

TEST_P(GdnGolden, ChunkedF64) {
  expect_agreement(Mode::run, DType::f64, kStored);
}
TEST_P(GdnGolden, RecurrentF64) {
  expect_agreement(Mode::reference, DType::f64, kStored);
}
TEST_P(GdnGolden, ChunkedF32) {
  expect_agreement(Mode::run, DType::f32, kSingle);
}

INSTANTIATE_TEST_SUITE_P(Cases, GdnGolden,
                         testing::Values("gdn", "gdn_grouped", "mamba2", "mamba2_grouped"),
                         [](const auto& p) { return std::string(p.param); });

}  // namespace
}  // namespace sluice::test
