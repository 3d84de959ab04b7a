// tests/kernels/gdn_test.cpp -- the chunked back end against the recurrence in f64, over gate
// families.
#include <gtest/gtest.h>

#include <cstring>

#include "tests/kernels/gdn_problem.h"

namespace sluice::test {
namespace {

struct Case {
  std::string name;
  GdnShape shape;
  std::function<void(GdnProblem&)> prepare = [](GdnProblem&) {};
  // Of a result's root mean square: 1.2e-7 of f32 through 64-token solves and sums; 2.9e-6 was the
  // most seen of the others.
  double f32 = 6e-6;
};

void PrintTo(const Case& c, std::ostream* out) {
  *out << c.name;
}

double noise(uint64_t seed, int64_t n, int64_t h, int64_t d) {
  return random_uniform(seed, uint64_t((n * 97 + h) * 1031 + d));
}

// Key = cosine * (a fixed direction) + the rest at random.
void similar_keys(GdnProblem& p, double cosine) {
  const int64_t K = p.shape.K, N = p.shape.N(), H = p.shape.H;
  for (int64_t i = 0; i < N * H; ++i)
    for (int64_t d = 0; d < K; ++d)
      set_element(p.k.view(), i * K + d,
                  float(cosine * random_normal(7, uint64_t(d)) +
                        std::sqrt(1 - cosine * cosine) * random_normal(8, uint64_t(i * K + d))));
}

void scale(const Tensor& t, double by) {
  for (int64_t i = 0; i < t.numel(); ++i) set_element(t, i, float(by * element(t, i)));
}

const GdnParams kTwice{true, 2}, kMamba{false, 1};

GdnShape shape(std::vector<int32_t> cu, GdnParams params = {}, int64_t H = 2, int64_t HV = 2,
               int64_t K = 24, int64_t V = 20) {
  return {H, HV, K, V, std::move(cu), params};
}

// What both recurrences must get right.
void common_cases(const std::string& prefix, const GdnParams& params, std::vector<Case>& all) {
  const auto add = [&](
                       const std::string& name, GdnShape s,
                       std::function<void(GdnProblem&)> prepare = [](GdnProblem&) {},
                       double f32 = 6e-6) {
    s.params = params;
    all.push_back({prefix + name, std::move(s), std::move(prepare), f32});
  };
  const auto gate = [&](const std::string& name,
                        std::function<double(int64_t, int64_t, int64_t)> value, double f32 = 6e-6) {
    add(
        name, shape({0, 300}), [value](GdnProblem& p) { p.decay(value); }, f32);
  };
  for (const int32_t T : {1, 15, 16, 17, 63, 64, 65, 129}) add(cat("tokens_", T), shape({0, T}));
  add("random", shape({0, 150, 300}));
  gate("slow", [](int64_t n, int64_t h, int64_t) { return -0.005 - 0.475 * noise(1, n, h, 0); });
  add("no_decay", shape({0, 300}), [](GdnProblem& p) { fill(p.A_log.view(), -1000); });
  gate("saturated", [](int64_t, int64_t, int64_t) { return -5.0; });
  gate("to_minus_100",
       [](int64_t n, int64_t h, int64_t) { return -100 * std::pow(noise(2, n, h, 0), 4); });
  gate("masked", [](int64_t n, int64_t h, int64_t) {
    return noise(3, n, h, 0) < 0.5 ? -1000 : -noise(4, n, h, 0);
  });
  gate("masked_tokens", [](int64_t n, int64_t h, int64_t) {
    return noise(3, n, 0, 0) < 0.1 ? -1000 : -0.1 * noise(4, n, h, 0);
  });
  add("norms", shape({0, 150}), [](GdnProblem& p) {
    for (const Tensor& t : {p.q.view(), p.k.view()})
      for (int64_t i = 0; i < t.numel(); ++i) {
        const int64_t row = i / (t.dim(1) * t.dim(2)) % 4;
        const double by[] = {1e-4, 1, 1e3, 0};  // the last: all-zero rows
        set_element(t, i, float(by[row] * element(t, i)));
      }
  });
  for (const double by : {1e3, 1e-3})
    add(by > 1 ? "large" : "small", shape({0, 150}), [by](GdnProblem& p) {
      for (const Tensor& t : {p.v.view(), p.d_o.view(), p.s0.view(), p.ds1.view()}) scale(t, by);
    });
  add("without_d_o", shape({0, 150}), [](GdnProblem& p) {
    p.decay([](int64_t, int64_t, int64_t) { return -0.01; });
    fill(p.d_o.view(), 0);
  });
  add("without_states", shape({0, 150}), [](GdnProblem& p) { p.with_states = false; });
  add("packed", shape({0, 15, 100, 300, 301, 500}, {}, 1, 1));
  std::vector<int32_t> tiny{0};
  for (int64_t d = 0; d < 60; ++d)
    tiny.push_back(tiny.back() + int32_t(41 * noise(6, d, 0, 0)) * (d % 7 != 0));
  add("packed_tiny_and_empty", shape(tiny, {}, 1, 2, 8, 5));
  add("grouped_2_8", shape({0, 100, 150}, {}, 2, 8, 16, 16));
  add("wide", shape({0, 100}, {}, 1, 1, 128, 130));
}

std::vector<Case> cases() {
  std::vector<Case> all;
  common_cases("delta_", {}, all);
  common_cases("mamba_", kMamba, all);
  all.push_back({"beta_0", shape({0, 150}), [](GdnProblem& p) {
                   p.decay(
                       [](int64_t, int64_t, int64_t) { return -0.02; });  // f32 holds what is left
                   fill(p.beta.view(), -1000);
                 }});
  all.push_back({"beta_1", shape({0, 150}), [](GdnProblem& p) { fill(p.beta.view(), 1000); }});
  all.push_back({"beta_0_or_1", shape({0, 150}), [](GdnProblem& p) {
                   for (int64_t i = 0; i < p.beta.view().numel(); ++i)
                     set_element(p.beta.view(), i, noise(5, i, 0, 0) < 0.5 ? -1000 : 1000);
                 }});
  all.push_back({"beta_near_2", shape({0, 150}, kTwice),
                 [](GdnProblem& p) { GdnProblem::normal(p.beta.view(), 9, 0.5, 4); }});
  for (const double cosine : {1.0, 0.98, 0.9})
    all.push_back(
        {cat("keys_of_cosine_", int(100 * cosine)), shape({0, 150}), [cosine](GdnProblem& p) {
           p.decay([](int64_t, int64_t, int64_t) { return -0.02; });
           fill(p.beta.view(), 1000);
           similar_keys(p, cosine);
         }});
  return all;
}

class GdnChunked : public ::testing::TestWithParam<Case> {
 protected:
  // rms(got - want) of each result stays under `tolerance` times rms(want), or for gradients made
  // of large terms that cancel, times the size of the terms: dg where the gate forgets all; the
  // sums of dg over tokens, where its error repeats from token to token and the gate (up to 100)
  // enlarges it.
  void expect_close(const GdnProblem& got, const GdnProblem& want, double tolerance) {
    const auto g = got.results(), w = want.results();
    const double terms = rms(want.dv.view()) / 10, dg = rms(want.dg.view()) + 1e-30;
    const double N = double(want.shape.N());
    for (size_t i = 0; i < g.size(); ++i) {
      const std::string& name = g[i].first;
      if ((name == "final_state" || name == "dinitial_state") && !want.with_states) continue;
      double sq = 0, size = rms(w[i].second);
      for (int64_t e = 0; e < g[i].second.numel(); ++e) {
        const double d = element(g[i].second, e) - element(w[i].second, e);
        sq += d * d;
      }
      if (name == "dg") size = std::max(size, terms);
      if (name == "ddt_bias") size += 5 * dg * std::sqrt(N);
      if (name == "dA_log") size += 10 * dg * std::sqrt(N * double(want.shape.K));
      const double error = std::sqrt(sq / double(std::max<int64_t>(g[i].second.numel(), 1)));
      EXPECT_LE(error, tolerance * size) << name << ": " << error / size;
    }
  }
  static double rms(const Tensor& t) {
    return std::sqrt(dot(t, t) / double(std::max<int64_t>(t.numel(), 1)));
  }
};

// 1e-10: a chunk's solve and its sums over 64 tokens lose a few digits of 2e-16, more so where keys
// are alike and beta is near 2.
TEST_P(GdnChunked, F64AgreesWithTheRecurrence) {
  GdnProblem got(GetParam().shape), want(GetParam().shape);
  GetParam().prepare(got);
  want.take_inputs(got);
  got.run(CpuContext());
  want.run(CpuContext(Mode::reference));
  expect_close(got, want, 1e-10);
}

TEST_P(GdnChunked, F32AgreesWithTheRecurrence) {
  GdnProblem got(GetParam().shape, DType::f32), want(GetParam().shape);
  GetParam().prepare(want);
  got.take_inputs(want);
  got.run(CpuContext());
  want.run(CpuContext(Mode::reference));
  expect_close(got, want, GetParam().f32);
}

INSTANTIATE_TEST_SUITE_P(Cases, GdnChunked, ::testing::ValuesIn(cases()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace sluice::test
