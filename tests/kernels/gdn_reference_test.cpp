// tests/kernels/gdn_reference_test.cpp -- the recurrence against closed forms, finite differences
// and KDA with equal gates in all channels.
#include <gtest/gtest.h>

#include "tests/kernels/gdn_problem.h"
#include "tests/kernels/kda_problem.h"

namespace sluice::test {
namespace {

const GdnParams kNegative{true, 2}, kMamba{false, 1};

// Keys and queries that the norm leaves as they are up to its epsilon: unit rows times 1e6.
void unit_key(const Tensor& t, int64_t n, int64_t channel) {
  for (int64_t d = 0; d < t.dim(2); ++d) set_element(t, n * t.dim(2) + d, d == channel ? 1e6 : 0);
}

double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}
double softplus(double x) {
  return std::log1p(std::exp(x));
}

// With total forgetting, as with one token, o is what the token itself wrote.
TEST(GdnReference, TotalForgetLeavesOnlyTheLastWrite) {
  for (const GdnParams& params : {GdnParams{}, kMamba}) {
    CpuContext cpu(Mode::reference);
    GdnProblem p({.H = 1, .HV = 1, .K = 4, .V = 3, .cu = {0, 5}, .params = params});
    p.decay([](int64_t, int64_t, int64_t) { return -1000.0; });
    p.forward(cpu);
    for (int64_t n = 0; n < 5; ++n) {
      double qk = 0, qq = 1e-6, kk = 1e-6;
      for (int64_t d = n * 4; d < n * 4 + 4; ++d) {
        qk += element(p.q.view(), d) * element(p.k.view(), d);
        qq += element(p.q.view(), d) * element(p.q.view(), d);
        kk += element(p.k.view(), d) * element(p.k.view(), d);
      }
      const double write = params.delta_rule ? sigmoid(element(p.beta.view(), n)) : 1000;
      for (int64_t j = 0; j < 3; ++j) {
        const double want = write * qk / std::sqrt(qq * kk) / 2 * element(p.v.view(), n * 3 + j);
        EXPECT_NEAR(element(p.o.view(), n * 3 + j), want, 1e-15 * (1 + write));
      }
    }
  }
}

// g = -exp(A_log) softplus(z + dt_bias), by hand; without writes the state only decays.
TEST(GdnReference, WithoutWritesTheStateOnlyDecays) {
  CpuContext cpu(Mode::reference);
  GdnProblem p({.H = 1, .HV = 2, .K = 4, .V = 3, .cu = {0, 7}, .params = {}});
  fill(p.beta.view(), -1000);  // beta = 0
  p.forward(cpu);
  for (int64_t hv = 0; hv < 2; ++hv) {
    double g = 0;
    for (int64_t n = 0; n < 7; ++n)
      g -= std::exp(element(p.A_log.view(), hv)) *
           softplus(element(p.g.view(), n * 2 + hv) + element(p.dt_bias.view(), hv));
    for (int64_t i = 0; i < 12; ++i)
      EXPECT_NEAR(element(p.s1.view(), hv * 12 + i),
                  element(p.s0.view(), hv * 12 + i) * std::exp(g), 1e-14);
  }
}

// Orthonormal keys, no decay, beta 1: a key reads the value written last at it. Without the delta
// rule it reads the sum of all, each times its step.
TEST(GdnReference, OrthonormalKeysOverwriteOrAdd) {
  for (const bool delta_rule : {true, false}) {
    CpuContext cpu(Mode::reference);
    GdnProblem p({.H = 1, .HV = 1, .K = 4, .V = 3, .cu = {0, 8}, .params = {delta_rule, 1}});
    p.with_states = false;
    fill(p.A_log.view(), -1000);  // exp = 0: no decay
    fill(p.beta.view(), 1000);    // beta = 1
    for (int64_t n = 0; n < 8; ++n) {
      unit_key(p.k.view(), n, n % 4);
      unit_key(p.q.view(), n, n % 4);
    }
    p.forward(cpu);
    for (int64_t n = 0; n < 8; ++n)
      for (int64_t j = 0; j < 3; ++j) {
        double want = 0;
        for (int64_t m = n % 4; m <= n; m += 4) {
          const double step = softplus(element(p.g.view(), m) + element(p.dt_bias.view(), 0));
          const double v = element(p.v.view(), m * 3 + j);
          want = delta_rule ? v : want + step * v;
        }
        EXPECT_NEAR(element(p.o.view(), n * 3 + j), want / 2, 1e-15) << n;  // K^-1/2 = 1/2
      }
  }
}

// The same recurrence where KDA's gate is equal in all channels; both modes.
TEST(GdnReference, EqualsKdaWithEqualGates) {
  for (const Mode mode : {Mode::reference, Mode::run})
    for (const double beta_max : {1.0, 2.0}) {
      CpuContext cpu(mode);
      const std::vector<int32_t> cu{0, 1, 1, 80, 210};
      GdnProblem p({.H = 2, .HV = 4, .K = 8, .V = 6, .cu = cu, .params = {true, beta_max}});
      KdaProblem want({.H = 2,
                       .HV = 4,
                       .K = 8,
                       .V = 6,
                       .cu = cu,
                       .params = {.gate = GateLaw::softplus, .beta_max = beta_max}});
      const auto in = p.inputs(), kda_in = want.inputs();
      for (const auto& [name, t] : in)
        for (const auto& [kda_name, to] : kda_in) {
          const int64_t repeat = name == kda_name ? to.numel() / t.numel() : 0;  // K, or 1
          for (int64_t i = 0; repeat > 0 && i < to.numel(); ++i)
            set_element(to, i, element(t, i / repeat));
        }
      p.run(cpu);
      want.run(cpu);
      const auto got = p.results(), kda = want.results();
      for (const auto& [name, t] : got)
        for (const auto& [kda_name, from] : kda) {
          const int64_t repeat = name == kda_name ? from.numel() / t.numel() : 0;
          for (int64_t i = 0; repeat > 0 && i < t.numel(); ++i) {
            double sum = 0;  // one gate feeds K channels
            for (int64_t d = 0; d < repeat; ++d) sum += element(from, i * repeat + d);
            ASSERT_NEAR(element(t, i), sum, 1e-11 * (1 + std::abs(sum))) << name << " " << i;
          }
        }
    }
}

struct GradCase {
  const char* name;
  GdnShape shape;
};
void PrintTo(const GradCase& c, std::ostream* out) {
  *out << c.name;
}

class GdnGradients : public ::testing::TestWithParam<GradCase> {};

// 1e-6: truncation and rounding of central differences are near 1e-10, divided by how much of a
// gradient's norm the random direction happens to see.
TEST_P(GdnGradients, AgreeWithDifferences) {
  for (const Mode mode : {Mode::reference, Mode::run}) {
    CpuContext cpu(mode);
    GdnProblem p(GetParam().shape);
    p.run(cpu);
    const auto in = p.inputs(), grad = p.gradients();
    for (size_t i = 0; i < grad.size(); ++i)
      EXPECT_LT(gradcheck([&] { return p.loss(cpu); }, in[i].second, grad[i].second, 100 + i), 1e-6)
          << grad[i].first << (mode == Mode::run ? ", chunked" : ", reference");
  }
}

std::vector<GradCase> grad_cases() {
  std::vector<GradCase> all;
  for (const bool mamba : {false, true}) {
    const GdnParams params = mamba ? kMamba : GdnParams{};
    all.push_back({mamba ? "mamba" : "delta", {.cu = {0, 20}, .params = params}});
    all.push_back(
        {mamba ? "mamba_grouped" : "delta_grouped",
         {.H = 2, .HV = 6, .K = 5, .V = 3, .cu = {0, 9}, .params = mamba ? kMamba : kNegative}});
    all.push_back(
        {mamba ? "mamba_packed" : "delta_packed",
         {.H = 1, .HV = 2, .K = 3, .V = 7, .cu = {0, 0, 1, 18, 18, 35}, .params = params}});
    all.push_back({mamba ? "mamba_chunks" : "delta_chunks",
                   {.H = 1, .HV = 1, .K = 4, .V = 4, .cu = {0, 130}, .params = params}});
  }
  return all;
}
INSTANTIATE_TEST_SUITE_P(Shapes, GdnGradients, ::testing::ValuesIn(grad_cases()),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace sluice::test
