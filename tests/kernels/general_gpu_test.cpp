// tests/kernels/general_gpu_test.cpp -- KDA and GDN on CUDA at head dims that have no kernels of
// their own, against the recurrence in f64, fed the same bf16 values.
#include <gtest/gtest.h>

#include <cstdio>

#include "tests/kernels/gdn_gpu_problem.h"
#include "tests/kernels/kda_gpu_problem.h"

namespace sluice::test {
namespace {

double noise(uint64_t seed, int64_t n, int64_t h, int64_t d) {
  return random_uniform(seed, uint64_t((n * 97 + h) * 1031 + d));
}
double rms(const Tensor& t) {
  return std::sqrt(dot(t, t) / double(std::max<int64_t>(t.numel(), 1)));
}

// Everything is f32; 4e-7 was the most seen. Tensors of tokens are compared with the reference
// rounded to bf16: what is left is the few elements that an error of f32 rounds to the other side,
// by 2^-7 of themselves, and one of them in a hundred is 8e-4 of the whole.
constexpr double kF32 = 2e-6, kRounded = 1e-3;

// rms(got - want) over rms(want); of gradients that are sums of larger terms, over those, as in
// kda_test.cpp and gdn_test.cpp.
template <class Problem>
void expect_close(const std::string& name, const Problem& got, const Problem& want) {
  const auto g = got.results(), w = want.results();
  const double N = double(want.shape.N()), K = double(want.shape.K), dg = rms(want.dg.view());
  std::printf("%-24s", name.c_str());
  for (size_t i = 0; i < g.size(); ++i) {
    const std::string& result = g[i].first;
    if ((result == "final_state" || result == "dinitial_state") && !want.with_states) continue;
    double sq = 0, size = std::max(rms(w[i].second), 1e-30);
    for (int64_t e = 0; e < w[i].second.numel(); ++e) {
      const double y = element(w[i].second, e);
      const double x = element(g[i].second, e) - (is_token(result) ? from_bf16(to_bf16(y)) : y);
      sq += x * x;
    }
    if (result == "dg") size = std::max(size, rms(want.dv.view()) / 100);
    if (result == "ddt_bias") size += 5 * dg * std::sqrt(N);
    if (result == "dA_log") size += 10 * dg * std::sqrt(N * K);
    const double error = std::sqrt(sq / double(std::max<int64_t>(w[i].second.numel(), 1))) / size;
    std::printf(" %s %.1e", result.c_str(), error);
    EXPECT_LE(error, is_token(result) ? kRounded : kF32) << name << " " << result;
  }
  std::printf("\n");
}

template <class Gpu, class Problem>
void run(const std::string& name, const Problem& want) {
  Problem got(want.shape), again(want.shape);
  got.take_inputs(want);
  Problem reference(want.shape);
  reference.take_inputs(want);
  reference.run(CpuContext(Mode::reference));
  Gpu gpu(got);
  gpu.forward();
  gpu.backward();
  gpu.download(got);
  expect_close(name, got, reference);
  gpu.forward();
  gpu.backward();
  again.with_states = got.with_states;
  gpu.download(again);
  for (size_t r = 0; r < got.results().size(); ++r)
    EXPECT_TRUE(same_bits(got.results()[r].second, again.results()[r].second))
        << name << " " << got.results()[r].first;
}

const std::vector<std::pair<int64_t, int64_t>> kDims = {{8, 8},   {32, 32},  {24, 40},  {96, 96},
                                                        {64, 80}, {128, 64}, {200, 256}};
const std::vector<int32_t> kDocuments = {0, 1, 1, 17, 33, 90};

class GeneralCuda : public ::testing::Test {
 protected:
  void SetUp() override {
    int count = 0;
    const cudaError_t e = cudaGetDeviceCount(&count);
    if (e != cudaSuccess || count == 0)
      GTEST_SKIP() << "NOT TESTED, no GPU: " << cudaGetErrorName(e) << ": "
                   << cudaGetErrorString(e);
  }
};

TEST_F(GeneralCuda, KdaAgreesWithTheRecurrenceInF64) {
  for (const auto& [K, V] : kDims)
    for (const KdaParams& params :
         {KdaParams{GateLaw::bounded, -5, 1}, KdaParams{GateLaw::softplus, -5, 2}}) {
      KdaProblem p({1, 2, K, V, kDocuments, params});
      round_inputs(p);
      run<KdaOnGpu>(cat("kda ", K, " ", V), p);
    }
  for (const double rate : {0.0, 0.02, 5.0, 100.0}) {
    KdaProblem p({1, 1, 40, 48, {0, 200}, {}});
    p.decay([rate](int64_t n, int64_t h, int64_t d) { return -rate * noise(2, n, h, d); });
    round_inputs(p);
    run<KdaOnGpu>(cat("kda decay to ", rate), p);
  }
  KdaProblem masked({1, 1, 40, 48, {0, 200}, {}});
  masked.decay([](int64_t n, int64_t, int64_t d) {
    return noise(3, n, 0, 0) < .1 ? -1000 : -.1 * noise(4, n, 0, d);
  });
  masked.with_states = false;
  round_inputs(masked);
  run<KdaOnGpu>("kda masked tokens", masked);
}

TEST_F(GeneralCuda, GdnAgreesWithTheRecurrenceInF64) {
  for (const auto& [K, V] : kDims)
    for (const GdnParams& params : {GdnParams{true, 2}, GdnParams{false, 1}}) {
      GdnProblem p({1, 2, K, V, kDocuments, params});
      round_inputs(p);
      run<GdnOnGpu>(cat(params.delta_rule ? "gdn " : "mamba2 ", K, " ", V), p);
    }
  for (const double rate : {0.0, 0.02, 5.0, 100.0}) {
    GdnProblem p({1, 1, 40, 48, {0, 200}, {}});
    p.decay([rate](int64_t n, int64_t h, int64_t) { return -rate * noise(2, n, h, 0); });
    round_inputs(p);
    run<GdnOnGpu>(cat("gdn decay to ", rate), p);
  }
  GdnProblem masked({1, 1, 40, 48, {0, 200}, {}});
  masked.decay([](int64_t n, int64_t, int64_t) {
    return noise(3, n, 0, 0) < .1 ? -1000 : -.1 * noise(4, n, 0, 1);
  });
  masked.with_states = false;
  round_inputs(masked);
  run<GdnOnGpu>("gdn masked tokens", masked);
}

TEST_F(GeneralCuda, AddsToGradients) {
  KdaProblem p({2, 4, 24, 40, kDocuments, {}}), one(p.shape), twice(p.shape);
  round_inputs(p);
  KdaOnGpu gpu(p);
  gpu.forward();
  gpu.backward();
  gpu.download(one);
  KdaBackward b = gpu.backward_args();
  for (Grad* g : {&b.dq, &b.dk, &b.dv, &b.dg, &b.dbeta, &b.dA_log, &b.ddt_bias, &b.dinitial_state})
    g->add = true;
  kda_backward(gpu.ctx, b);
  gpu.download(twice);
  for (size_t r = 2; r < one.results().size(); ++r) {
    const Tensor once = one.results()[r].second, sum = twice.results()[r].second;
    for (int64_t e = 0; e < once.numel(); ++e)  // rounded to bf16 after the sum
      ASSERT_NEAR(element(sum, e), 2 * element(once, e), 0.005 * std::abs(2 * element(once, e)))
          << one.results()[r].first << " " << e;
  }
}

TEST_F(GeneralCuda, NoRows) {
  for (const std::vector<int32_t>& cu : {std::vector<int32_t>{0, 0, 0}, std::vector<int32_t>{0}}) {
    GdnProblem p({1, 2, 24, 40, cu, {}}), got(p.shape);
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

TEST_F(GeneralCuda, RefusesOtherSizes) {
  for (const int64_t K : {12, 264}) {
    GdnProblem p({1, 1, K, 8, {0, 3}, {}});
    GdnOnGpu gpu(p);
    try {
      gpu.forward();
      FAIL();
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(cat("K is ", K)), std::string::npos) << e.what();
    }
  }
}

}  // namespace
}  // namespace sluice::test
