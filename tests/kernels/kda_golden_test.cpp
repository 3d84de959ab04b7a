// tests/kernels/kda_golden_test.cpp -- KDA against flash-linear-attention's naive recurrence and
// its gradients by autograd (tests/golden/fla, make.py wrote them).
//
//   ctest -R KdaGolden -V        prints the worst differences
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/kernels/kda_problem.h"
#include "tests/support/golden.h"

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
  // Largest difference of a result, as a share of its largest value.
  void expect_agreement(Mode mode, DType type, double bound, double of_cancelled) {
    const SafetensorsReader file(std::string(SLUICE_SOURCE_DIR "/tests/golden/fla/") + GetParam() +
                                 ".safetensors");
    KdaProblem p(shape_of(file), type);
    for (const auto& [name, t] : p.inputs()) {
      const std::vector<double> values = golden_values(file, name);
      for (int64_t i = 0; i < t.numel(); ++i) set_element(t, i, values.at(size_t(i)));
    }
    p.run(CpuContext(mode, 2, 16 << 20));
    std::string line;
    for (const auto& [name, t] : p.results()) {
      const std::vector<double> want = golden_values(file, name);
      double worst = 0, largest = 0;
      for (int64_t i = 0; i < t.numel(); ++i) {
        const double d = std::abs(element(t, i) - want.at(size_t(i)));
        worst = std::isnan(d) ? INFINITY : std::max(worst, d);
        largest = std::max(largest, std::abs(want[size_t(i)]));
      }
      line += fmt::format(" {} {:.1e}", name, worst / largest);
      const bool cancels = name == "dg" || name == "dA_log" || name == "ddt_bias";
      EXPECT_LE(worst, (cancels ? of_cancelled : bound) * largest) << name;
    }
    fmt::print("{} {} {}:{}\n", GetParam(), name(type), mode == Mode::run ? "chunked" : "recurrent",
               line);
  }
};

// The results are stored in f32: half a unit of its last place is all that f64 may differ by.
constexpr double kStored = 0x1.001p-24;
TEST_P(KdaGolden, ChunkedF64) {
  expect_agreement(Mode::run, DType::f64, kStored, kStored);
}
TEST_P(KdaGolden, RecurrentF64) {
  expect_agreement(Mode::reference, DType::f64, kStored, kStored);
}
// As in kda_test.cpp: sums of up to 64 terms, and gradients of the gate that cancel.
TEST_P(KdaGolden, ChunkedF32) {
  expect_agreement(Mode::run, DType::f32, 4e-6, 2e-4);
}

INSTANTIATE_TEST_SUITE_P(Cases, KdaGolden,
                         testing::Values("softplus_slow", "softplus_fast", "softplus_grouped",
                                         "bounded", "bounded_slow_grouped", "bounded_one_token"),
                         [](const auto& p) { return std::string(p.param); });

}  // namespace
}  // namespace sluice::test
