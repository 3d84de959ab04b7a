// tests/kernels/kda_gpu_bounds.h -- how close the CUDA back end of KDA has to come.
#pragma once

#include <gtest/gtest.h>

#include <cstdio>
#include <map>
#include <string>

#include "tests/kernels/kda_problem.h"

namespace sluice::test {

struct KdaBounds {  // of final_state, dv and dA_log
  double state = .005, dv = .007, dA_log = .005;
};

inline double rms(const Tensor& t) {
  return std::sqrt(dot(t, t) / double(std::max<int64_t>(t.numel(), 1)));
}

// What operands of bf16 and f32 sums leave (README.md).
inline const std::map<std::string, double> kKdaBounds = {{"o", .005},
                                                         {"dq", .007},
                                                         {"dk", .007},
                                                         {"dg", .015},
                                                         {"dbeta", .015},
                                                         {"ddt_bias", .005},
                                                         {"dinitial_state", .007}};

// rms(got - want) over rms(want), or for gradients made of larger terms that cancel, over the size
// of the terms, as in kda_test.cpp. Printed: both.
inline void expect_close(const std::string& label, const KdaBounds& bounds, const KdaProblem& got,
                         const KdaProblem& want) {
  const auto g = got.results(), w = want.results();
  const double dg = rms(want.dg.view()), N = double(want.shape.N()), K = double(want.shape.K);
  std::printf("%-36s", label.c_str());
  for (size_t i = 0; i < g.size(); ++i) {
    const std::string& name = g[i].first;
    if (name == "final_state" ? !want.has_final() : name == "dinitial_state" && !want.has_initial())
      continue;
    const Buffer difference(w[i].second);
    for (int64_t e = 0; e < w[i].second.numel(); ++e)
      set_element(difference.view(), e, element(g[i].second, e) - element(w[i].second, e));
    const double own = rms(w[i].second), error = rms(difference.view());
    double size = std::max(own, 1e-30);  // less is 0 in f32
    if (name == "dg") size = std::max(size, rms(want.dbeta.view()) / 10);
    if (name == "ddt_bias") size += 5 * dg * std::sqrt(N);
    if (name == "dA_log") size += 10 * dg * std::sqrt(N * K);
    std::printf(" %s %.1e", name.c_str(), own == 0 ? error : error / own);
    if (size != own) std::printf(" (%.1e)", error / size);
    const double bound = name == "final_state" ? bounds.state
                         : name == "dv"        ? bounds.dv
                         : name == "dA_log"    ? bounds.dA_log
                                               : kKdaBounds.at(name);
    EXPECT_LE(error, bound * size) << label << ": " << name << ": " << error / size;
  }
  std::printf("\n");
}

}  // namespace sluice::test
