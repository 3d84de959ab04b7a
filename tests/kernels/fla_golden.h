// tests/kernels/fla_golden.h -- an operator's problem against a file of tests/golden/fla.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/support/cpu_context.h"
#include "tests/support/golden.h"

namespace sluice::test {

inline std::string fla_golden(const std::string& name) {
  return SLUICE_SOURCE_DIR "/tests/golden/fla/" + name + ".safetensors";
}

// Of a result's largest value; dg, dA_log and ddt_bias are remainders of sums that cancel.
struct GoldenBounds {
  double most, cancelled;
};
// The results are stored in f32: half a unit of its last place is all that f64 may differ by.
constexpr GoldenBounds kStored{0x1.001p-24, 0x1.001p-24};
constexpr GoldenBounds kSingle{4e-6, 2e-4};  // as in kda_test.cpp

// Takes the file's inputs, runs forward and backward, compares and prints every result.
template <class Problem>
void expect_golden(Problem& p, const SafetensorsReader& file, const char* label, Mode mode,
                   const GoldenBounds& bounds) {
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
    EXPECT_LE(worst, (cancels ? bounds.cancelled : bounds.most) * largest) << name;
  }
  fmt::print("{} {} {}:{}\n", label, name(p.type), mode == Mode::run ? "chunked" : "recurrent",
             line);
}

}  // namespace sluice::test
