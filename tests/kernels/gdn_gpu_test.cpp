// tests/kernels/gdn_gpu_test.cpp -- the CUDA back end of GDN against the recurrence in f64, fed the
// same bf16 values.
#include <gtest/gtest.h>

#include <cstdio>

#include "tests/kernels/gdn_gpu_problem.h"

namespace sluice::test {
namespace {

struct Case {
  std::string name;
  GdnShape shape;
  std::function<void(GdnProblem&)> prepare = [](GdnProblem&) {};
  double state = .005, dv = .007, dA_log = .005;  // bounds
};

void PrintTo(const Case& c, std::ostream* out) {
  *out << c.name;
}

double noise(uint64_t seed, int64_t n, int64_t h, int64_t d) {
  return random_uniform(seed, uint64_t((n * 97 + h) * 1031 + d));
}

void scale(const Tensor& t, double by) {
  for (int64_t i = 0; i < t.numel(); ++i) set_element(t, i, by * element(t, i));
}

// Key = cosine * (a fixed direction) + the rest at random.
void similar_keys(GdnProblem& p, double cosine) {
  const int64_t K = p.shape.K;
  for (int64_t e = 0; e < p.k.view().numel(); ++e)
    set_element(p.k.view(), e,
                cosine * random_normal(7, uint64_t(e % K)) +
                    std::sqrt(1 - cosine * cosine) * random_normal(8, uint64_t(e)));
}

const GdnParams kTwice{true, 2}, kMamba{false, 1};

GdnShape shape(std::vector<int32_t> cu, int64_t H = 2, int64_t HV = 2, int64_t D = 128,
               int64_t V = 0) {
  return {H, HV, D, V ? V : D, std::move(cu), {}};
}

// What both recurrences must get right.
void common_cases(const std::string& prefix, const GdnParams& params, std::vector<Case>& all) {
  const auto add = [&](
                       const std::string& name, GdnShape s,
                       std::function<void(GdnProblem&)> prepare = [](GdnProblem&) {}) {
    s.params = params;
    all.push_back({prefix + name, std::move(s), std::move(prepare)});
  };
  const auto gate = [&](const std::string& name, GdnShape s,
                        std::function<double(int64_t, int64_t, int64_t)> value) {
    add(name, std::move(s), [value](GdnProblem& p) { p.decay(value); });
  };
  const auto slow = [](int64_t n, int64_t h, int64_t) {
    return -0.005 - 0.475 * noise(1, n, h, 0);
  };
  add("random", shape({0, 300}, 3, 3));
  add("random_64", shape({0, 300}, 2, 2, 64));
  gate("slow", shape({0, 500}), slow);
  gate("slow_64", shape({0, 300}, 2, 2, 64), slow);
  add("no_decay", shape({0, 200}), [](GdnProblem& p) { fill(p.A_log.view(), -1000); });
  gate("saturated", shape({0, 200}), [](int64_t, int64_t, int64_t) { return -5.0; });
  gate("to_minus_100", shape({0, 200}),
       [](int64_t n, int64_t h, int64_t) { return -100 * std::pow(noise(2, n, h, 0), 4); });
  gate("masked", shape({0, 200}), [](int64_t n, int64_t h, int64_t) {
    return noise(3, n, h, 0) < 0.5 ? -1000 : -noise(4, n, h, 0);
  });
  gate("masked_tokens", shape({0, 200}), [](int64_t n, int64_t h, int64_t) {
    return noise(3, n, 0, 0) < 0.1 ? -1000 : -0.1 * noise(4, n, h, 0);
  });
  add("norms", shape({0, 150}), [](GdnProblem& p) {
    for (const Tensor& t : {p.q.view(), p.k.view()})
      for (int64_t i = 0; i < t.numel(); ++i) {
        const double by[] = {1e-4, 1, 1e3, 0};  // the last: all-zero rows
        set_element(t, i, by[i / (t.dim(1) * t.dim(2)) % 4] * element(t, i));
      }
  });
  for (const double by : {1e3, 1e-3})
    add(by > 1 ? "large" : "small", shape({0, 150}), [by](GdnProblem& p) {
      for (const Tensor& t : {p.v.view(), p.d_o.view(), p.s0.view(), p.ds1.view()}) scale(t, by);
    });
  add("without_states", shape({0, 150}), [](GdnProblem& p) { p.with_states = false; });
  add("packed", shape({0, 15, 100, 300, 700}, 1, 1));
  std::vector<int32_t> tiny{0};
  for (int64_t d = 0; d < 60; ++d)
    tiny.push_back(tiny.back() + int32_t(41 * noise(6, d, 0, 0)) * (d % 7 != 0));
  add("packed_tiny_and_empty", shape(tiny, 1, 2, 64));
  add("grouped_2_4", shape({0, 100, 150}, 2, 4));
  add("grouped_2_8", shape({0, 100}, 2, 8, 64));
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const int32_t T : {1, 2})  // many heads: of a few numbers, one that cancels would be all
    all.push_back({cat("tokens_", T), shape({0, T}, 16, 16)});
  for (const int32_t T : {15, 16, 17, 31, 33, 63, 64, 65, 127, 129})
    all.push_back({cat("tokens_", T), shape({0, T})});
  common_cases("delta_", {}, all);
  common_cases("mamba_", kMamba, all);
  all.push_back({"beta_0", shape({0, 150}), [](GdnProblem& p) { fill(p.beta.view(), -1000); }});
  all.push_back({"beta_1", shape({0, 150}), [](GdnProblem& p) { fill(p.beta.view(), 1000); }});
  Case twice{"beta_near_2", shape({0, 150}),
             [](GdnProblem& p) { GdnProblem::normal(p.beta.view(), 9, 0.5, 4); }};
  twice.shape.params = kTwice;
  all.push_back(twice);
  for (const double cosine : {1.0, 0.98, 0.9})
    all.push_back({cat("keys_of_cosine_", int(100 * cosine)), shape({0, 150}),
                   [cosine](GdnProblem& p) {
                     p.decay([](int64_t, int64_t, int64_t) { return -0.02; });
                     fill(p.beta.view(), 1000);
                     similar_keys(p, cosine);
                     // .02: every token writes to about the same place, and what it writes is bf16.
                     // About 50 of these (the decay's reach), each good to .0011 and larger than
                     // the state by sqrt(2), add up to .011.
                   },
                   .02, .02, .02});
  all.push_back({"without_d_o", shape({0, 150}), [](GdnProblem& p) { fill(p.d_o.view(), 0); }});
  all.push_back(
      {"without_dfinal_state", shape({0, 150}), [](GdnProblem& p) { fill(p.ds1.view(), 0); }});
  return all;
}

class GdnCuda : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    int count = 0;
    const cudaError_t e = cudaGetDeviceCount(&count);
    if (e != cudaSuccess || count == 0)
      GTEST_SKIP() << "NOT TESTED, no GPU: " << cudaGetErrorName(e) << ": "
                   << cudaGetErrorString(e);
  }
};

double rms(const Tensor& t) {
  return std::sqrt(dot(t, t) / double(std::max<int64_t>(t.numel(), 1)));
}

// What operands of bf16 and f32 sums leave (README.md).
const std::map<std::string, double> kBounds = {{"o", .005},
                                               {"dq", .007},
                                               {"dk", .007},
                                               {"dg", .015},
                                               {"dbeta", .015},
                                               {"ddt_bias", .005},
                                               {"dinitial_state", .007}};

// rms(got - want) over rms(want), or for gradients made of larger terms that cancel, over the size
// of the terms, as in gdn_test.cpp. Printed: both.
void expect_close(const Case& c, const GdnProblem& got, const GdnProblem& want) {
  const auto g = got.results(), w = want.results();
  const double terms = rms(want.dv.view()) / 10, dg = rms(want.dg.view());
  const double N = double(want.shape.N()), K = double(want.shape.K);
  std::printf("%-28s", c.name.c_str());
  for (size_t i = 0; i < g.size(); ++i) {
    const std::string& name = g[i].first;
    if ((name == "final_state" || name == "dinitial_state") && !want.with_states) continue;
    const Buffer difference(w[i].second);
    for (int64_t e = 0; e < w[i].second.numel(); ++e)
      set_element(difference.view(), e, element(g[i].second, e) - element(w[i].second, e));
    const double own = rms(w[i].second), error = rms(difference.view());
    double size = std::max(own, 1e-30);  // less is 0 in f32
    if (name == "dg") size = std::max(size, terms);
    if (name == "ddt_bias") size += 5 * dg * std::sqrt(N);
    if (name == "dA_log") size += 10 * dg * std::sqrt(N * K);
    std::printf(" %s %.1e", name.c_str(), own == 0 ? error : error / own);
    if (size != own) std::printf(" (%.1e)", error / size);
    const double bound = name == "final_state" ? c.state
                         : name == "dv"        ? c.dv
                         : name == "dA_log"    ? c.dA_log
                                               : kBounds.at(name);
    EXPECT_LE(error, bound * size) << name << ": " << error / size;
  }
  std::printf("\n");
}

TEST_P(GdnCuda, AgreesWithTheRecurrenceInF64) {
  GdnProblem want(GetParam().shape), got(GetParam().shape);
  GetParam().prepare(want);
  round_inputs(want);
  got.take_inputs(want);
  want.run(CpuContext(Mode::reference));
  GdnOnGpu gpu(got);
  gpu.forward();
  gpu.backward();
  gpu.download(got);
  expect_close(GetParam(), got, want);
}

INSTANTIATE_TEST_SUITE_P(Cases, GdnCuda, ::testing::ValuesIn(cases()),
                         [](const auto& info) { return info.param.name; });

// Twice the same bits; and gradients that are added to.
TEST_F(GdnCuda, SameBitsAgainAndAddedGradients) {
  for (const int64_t D : {64, 128}) {
    GdnProblem p(shape({0, 70, 70, 75, 205, 500}, 2, 4, D)), one(p.shape), again(p.shape);
    round_inputs(p);
    GdnOnGpu gpu(p);
    gpu.forward();
    gpu.backward();
    gpu.download(one);
    for (int i = 0; i < 3; ++i) {
      gpu.forward();
      gpu.backward();
      gpu.download(again);
      for (size_t r = 0; r < one.results().size(); ++r)
        ASSERT_TRUE(same_bits(one.results()[r].second, again.results()[r].second))
            << one.results()[r].first;
    }
    GdnBackward b = gpu.backward_args();
    for (Grad* g :
         {&b.dq, &b.dk, &b.dv, &b.dg, &b.dbeta, &b.dA_log, &b.ddt_bias, &b.dinitial_state})
      g->add = true;
    gdn_backward(gpu.ctx, b);
    SLUICE_CUDA(cudaDeviceSynchronize());
    gpu.download(again);
    for (size_t r = 2; r < one.results().size(); ++r) {
      const Tensor once = one.results()[r].second, twice = again.results()[r].second;
      // Rounded to bf16 after the sum, dV before it too: 2^-8 of it.
      for (int64_t e = 0; e < once.numel(); ++e)
        ASSERT_NEAR(element(twice, e), 2 * element(once, e), 0.005 * std::abs(2 * element(once, e)))
            << one.results()[r].first << " " << e;
    }
  }
}

// What a forward that keeps nothing computes, its final state where the initial one was.
TEST_F(GdnCuda, TheSameWithoutBackward) {
  GdnProblem p(shape({0, 100, 300}, 2, 4)), kept(p.shape), alone(p.shape);
  round_inputs(p);
  GdnOnGpu gpu(p);
  gpu.forward();
  gpu.download(kept);
  GdnForward a = gpu.forward_args();
  copy(a.initial_state, a.final_state);
  a.initial_state = a.final_state;
  gdn_forward(gpu.ctx, a);
  SLUICE_CUDA(cudaDeviceSynchronize());
  gpu.download(alone);
  EXPECT_TRUE(same_bits(kept.o.view(), alone.o.view()));
  EXPECT_TRUE(same_bits(kept.s1.view(), alone.s1.view()));
}

TEST_F(GdnCuda, NoRows) {
  for (const std::vector<int32_t>& cu : {std::vector<int32_t>{0, 0, 0}, std::vector<int32_t>{0}}) {
    GdnProblem p(shape(cu)), got(p.shape);
    round_inputs(p);
    got.take_inputs(p);
    GdnOnGpu gpu(got);
    gpu.forward();
    gpu.backward();
    gpu.download(got);
    EXPECT_TRUE(same_bits(got.s1.view(), p.s0.view()));
    EXPECT_TRUE(same_bits(got.ds0.view(), p.ds1.view()));
    for (const Tensor& t : {got.dA_log.view(), got.ddt_bias.view()})
      for (int64_t i = 0; i < t.numel(); ++i) EXPECT_EQ(element(t, i), 0);
  }
}

}  // namespace
}  // namespace sluice::test
