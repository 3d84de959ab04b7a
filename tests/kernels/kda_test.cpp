// tests/kernels/kda_test.cpp -- the chunked back end against the recurrence in f64, over gate
// families.
#include <gtest/gtest.h>

#include <cstring>

#include "tests/kernels/kda_problem.h"

namespace sluice::test {
namespace {

struct Case {
  std::string name;
  KdaShape shape;
  std::function<void(KdaProblem&)> prepare = [](KdaProblem&) {};
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
void similar_keys(KdaProblem& p, double cosine) {
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

const KdaParams kBounded{GateLaw::bounded, -5, 1};
const KdaParams kTwice{GateLaw::softplus, -5, 2};

KdaShape shape(std::vector<int32_t> cu, KdaParams params = {}, int64_t H = 2, int64_t HV = 2,
               int64_t K = 24, int64_t V = 20) {
  return {H, HV, K, V, std::move(cu), params};
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const int32_t T : {1, 2, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129})
    all.push_back({cat("tokens_", T), shape({0, T}, kBounded)});
  all.push_back({"random_bounded", shape({0, 150, 300}, kBounded)});
  all.push_back({"random_softplus", shape({0, 150, 300})});
  all.push_back({"slow", shape({0, 300}), [](KdaProblem& p) {
                   p.decay([](int64_t n, int64_t h, int64_t d) {
                     return -0.005 - 0.475 * noise(1, n, h, d);
                   });
                 }});
  all.push_back({"zero", shape({0, 300}),
                 [](KdaProblem& p) { p.decay([](int64_t, int64_t, int64_t) { return 0.0; }); }});
  all.push_back(
      {"saturated", shape({0, 300}, kBounded), [](KdaProblem& p) { fill(p.g.view(), 500); }});
  all.push_back({"half_zero_half_strong", shape({0, 300}), [](KdaProblem& p) {
                   p.decay([](int64_t, int64_t, int64_t d) { return d % 2 ? -5.0 : 0.0; });
                   scale(p.s0.view(), 100);
                 }});
  all.push_back({"to_minus_100", shape({0, 300}),
                 [](KdaProblem& p) {
                   p.decay([](int64_t n, int64_t h, int64_t d) {
                     return -100 * std::pow(noise(2, n, h, d), 4);
                   });
                   // 5e-5: dA_log sums dg * g, rounding of dg times 40 where dg itself is e^-40.
                 },
                 5e-5});
  all.push_back({"masked", shape({0, 300}), [](KdaProblem& p) {
                   p.decay([](int64_t n, int64_t h, int64_t d) {
                     return noise(3, n, h, d) < 0.5 ? -1000 : -noise(4, n, h, d);
                   });
                 }});
  all.push_back({"masked_tokens", shape({0, 300}), [](KdaProblem& p) {
                   p.decay([](int64_t n, int64_t h, int64_t d) {
                     return noise(3, n, 0, 0) < 0.1 ? -1000 : -0.1 * noise(4, n, h, d);
                   });
                 }});
  all.push_back({"beta_0", shape({0, 150}), [](KdaProblem& p) { fill(p.beta.view(), -1000); }});
  all.push_back({"beta_1", shape({0, 150}), [](KdaProblem& p) { fill(p.beta.view(), 1000); }});
  all.push_back({"beta_0_or_1", shape({0, 150}), [](KdaProblem& p) {
                   for (int64_t i = 0; i < p.beta.view().numel(); ++i)
                     set_element(p.beta.view(), i, noise(5, i, 0, 0) < 0.5 ? -1000 : 1000);
                 }});
  all.push_back({"beta_near_2", shape({0, 150}, kTwice),
                 [](KdaProblem& p) { KdaProblem::normal(p.beta.view(), 9, 0.5, 4); }});
  for (const double cosine : {1.0, 0.98, 0.9})
    all.push_back(
        {cat("keys_of_cosine_", int(100 * cosine)), shape({0, 150}), [cosine](KdaProblem& p) {
           p.decay([](int64_t, int64_t, int64_t) { return -0.02; });
           fill(p.beta.view(), 1000);
           similar_keys(p, cosine);
         }});
  all.push_back({"norms", shape({0, 150}, kBounded), [](KdaProblem& p) {
                   for (const Tensor& t : {p.q.view(), p.k.view()})
                     for (int64_t i = 0; i < t.numel(); ++i) {
                       const int64_t row = i / (t.dim(1) * t.dim(2)) % 4;
                       const double by[] = {1e-4, 1, 1e3, 0};  // the last: all-zero rows
                       set_element(t, i, float(by[row] * element(t, i)));
                     }
                 }});
  for (const double by : {1e3, 1e-3})
    all.push_back({by > 1 ? "large" : "small", shape({0, 150}, kBounded), [by](KdaProblem& p) {
                     for (const Tensor& t : {p.v.view(), p.d_o.view(), p.s0.view(), p.ds1.view()})
                       scale(t, by);
                   }});
  all.push_back({"without_d_o", shape({0, 150}), [](KdaProblem& p) { fill(p.d_o.view(), 0); }});
  all.push_back(
      {"without_dfinal_state", shape({0, 150}), [](KdaProblem& p) { fill(p.ds1.view(), 0); }});
  all.push_back({"without_states", shape({0, 150}), [](KdaProblem& p) { p.with_states = false; }});
  all.push_back({"packed_15", shape({0, 15}, kBounded)});
  all.push_back({"packed_500", shape({0, 128, 250, 500}, kBounded, 1, 1)});
  all.push_back({"packed_many", shape({0, 15, 100, 300, 301, 500}, {}, 1, 1)});
  std::vector<int32_t> tiny{0};
  for (int64_t d = 0; d < 60; ++d)
    tiny.push_back(tiny.back() + int32_t(41 * noise(6, d, 0, 0)) * (d % 7 != 0));
  all.push_back({"packed_tiny_and_empty", shape(tiny, kBounded, 1, 2, 8, 5)});
  all.push_back({"grouped_2_4", shape({0, 100, 150}, {}, 2, 4)});
  all.push_back({"grouped_2_8", shape({0, 100}, kBounded, 2, 8, 16, 16)});
  // 1e-4: the norm leaves one channel nothing but its epsilon, so dq is all cancellation.
  all.push_back({"one_channel", shape({0, 100}, kBounded, 1, 1, 1, 1), [](KdaProblem&) {}, 1e-4});
  all.push_back({"wide", shape({0, 100}, kBounded, 1, 1, 128, 130)});
  return all;
}

class KdaChunked : public ::testing::TestWithParam<Case> {
 protected:
  // rms(got - want) of each result stays under `tolerance` times rms(want), or for gradients made
  // of large terms that cancel, times the size of the terms: dg where the gate forgets all; the
  // sums of dg over tokens, where its error repeats from token to token and the gate (up to 100)
  // enlarges it.
  void expect_close(const KdaProblem& got, const KdaProblem& want, double tolerance) {
    const auto g = got.results(), w = want.results();
    const double terms = rms(want.dbeta.view()) / 10, dg = rms(want.dg.view()) + 1e-30;
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
TEST_P(KdaChunked, F64AgreesWithTheRecurrence) {
  KdaProblem got(GetParam().shape), want(GetParam().shape);
  GetParam().prepare(got);
  want.take_inputs(got);
  got.run(CpuContext());
  want.run(CpuContext(Mode::reference));
  expect_close(got, want, 1e-10);
}

TEST_P(KdaChunked, F32AgreesWithTheRecurrence) {
  KdaProblem got(GetParam().shape, DType::f32), want(GetParam().shape);
  GetParam().prepare(want);
  got.take_inputs(want);
  got.run(CpuContext());
  want.run(CpuContext(Mode::reference));
  expect_close(got, want, GetParam().f32);
}

INSTANTIATE_TEST_SUITE_P(Cases, KdaChunked, ::testing::ValuesIn(cases()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace sluice::test
