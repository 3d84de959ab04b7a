// tests/kernels/kda_gpu_test.cpp -- the CUDA back end of KDA against the recurrence in f64, fed the
// same bf16 values.
#include <gtest/gtest.h>

#include <cstdio>

#include "tests/kernels/kda_gpu_bounds.h"
#include "tests/kernels/kda_gpu_problem.h"

namespace sluice::test {
namespace {

struct Case {
  std::string name;
  KdaShape shape;
  std::function<void(KdaProblem&)> prepare = [](KdaProblem&) {};
  KdaBounds bounds{};
};

void PrintTo(const Case& c, std::ostream* out) {
  *out << c.name;
}

const KdaParams kBounded{GateLaw::bounded, -5, 1};
const KdaParams kSoftplus{};
const KdaParams kTwice{GateLaw::softplus, -5, 2};

double noise(uint64_t seed, int64_t n, int64_t h, int64_t d) {
  return random_uniform(seed, uint64_t((n * 97 + h) * 1031 + d));
}

KdaShape shape(std::vector<int32_t> cu, KdaParams params, int64_t H = 2, int64_t HV = 2,
               int64_t D = 128) {
  return {H, HV, D, D, std::move(cu), params};
}

void scale(const Tensor& t, double by) {
  for (int64_t i = 0; i < t.numel(); ++i) set_element(t, i, by * element(t, i));
}

// Key = cosine * (a fixed direction) + the rest at random.
void similar_keys(KdaProblem& p, double cosine) {
  const int64_t K = p.shape.K;
  for (int64_t e = 0; e < p.k.view().numel(); ++e)
    set_element(p.k.view(), e,
                cosine * random_normal(7, uint64_t(e % K)) +
                    std::sqrt(1 - cosine * cosine) * random_normal(8, uint64_t(e)));
}

std::function<void(KdaProblem&)> decays(std::function<double(int64_t, int64_t, int64_t)> value) {
  return [value](KdaProblem& p) { p.decay(value); };
}

void add_gates(std::vector<Case>& all) {
  const auto slow =
      decays([](int64_t n, int64_t h, int64_t d) { return -0.005 - 0.475 * noise(1, n, h, d); });
  all.push_back({"random_bounded", shape({0, 500}, kBounded, 3, 3)});
  all.push_back({"random_bounded_64", shape({0, 500}, kBounded, 2, 2, 64)});
  all.push_back({"random_softplus", shape({0, 500}, kSoftplus)});
  all.push_back({"slow", shape({0, 1024}, kSoftplus), slow});
  all.push_back({"slow_64", shape({0, 300}, kSoftplus, 2, 2, 64), slow});
  all.push_back({"half_zero_half_strong", shape({0, 1024}, kSoftplus, 1, 1), [](KdaProblem& p) {
                   p.decay([](int64_t, int64_t, int64_t d) { return d % 2 ? -5.0 : 0.0; });
                   scale(p.s0.view(), 100);
                 }});
  all.push_back(
      {"zero", shape({0, 300}, kSoftplus), decays([](int64_t, int64_t, int64_t) { return 0.0; })});
  all.push_back(
      {"saturated", shape({0, 300}, kBounded), [](KdaProblem& p) { fill(p.g.view(), 500); }});
  all.push_back(
      {"to_minus_100", shape({0, 300}, kSoftplus), decays([](int64_t n, int64_t h, int64_t d) {
         return -100 * std::pow(noise(2, n, h, d), 4);
       })});
  all.push_back({"masked", shape({0, 500}, kSoftplus), decays([](int64_t n, int64_t h, int64_t d) {
                   return noise(3, n, h, d) < 0.5 ? -1000 : -noise(4, n, h, d);
                 })});
  all.push_back(
      {"masked_tokens", shape({0, 300}, kSoftplus), decays([](int64_t n, int64_t h, int64_t d) {
         return noise(3, n, 0, 0) < 0.1 ? -1000 : -0.1 * noise(4, n, h, d);
       })});
}

void add_values(std::vector<Case>& all) {
  all.push_back(
      {"beta_0", shape({0, 150}, kSoftplus), [](KdaProblem& p) { fill(p.beta.view(), -1000); }});
  all.push_back(
      {"beta_1", shape({0, 150}, kSoftplus), [](KdaProblem& p) { fill(p.beta.view(), 1000); }});
  all.push_back({"beta_near_2", shape({0, 150}, kTwice),
                 [](KdaProblem& p) { KdaProblem::normal(p.beta.view(), 9, 0.5, 4); }});
  for (const double cosine : {1.0, 0.98, 0.9})
    all.push_back({cat("keys_of_cosine_", int(100 * cosine)),
                   shape({0, 150}, kSoftplus),
                   [cosine](KdaProblem& p) {
                     p.decay([](int64_t, int64_t, int64_t) { return -0.02; });
                     fill(p.beta.view(), 1000);
                     similar_keys(p, cosine);
                   },
                   {.dA_log = .0065}});  // as in kda_contract_gpu_test.cpp
  all.push_back({"norms", shape({0, 150}, kBounded), [](KdaProblem& p) {
                   for (const Tensor& t : {p.q.view(), p.k.view()})
                     for (int64_t i = 0; i < t.numel(); ++i) {
                       const double by[] = {1e-4, 1, 1e3, 0};
                       const int64_t row = i / (t.dim(1) * t.dim(2)) % 4;
                       set_element(t, i, by[row] * element(t, i));
                     }
                 }});
  for (const double by : {1e3, 1e-3})
    all.push_back({by > 1 ? "large" : "small", shape({0, 150}, kBounded), [by](KdaProblem& p) {
                     for (const Tensor& t : {p.v.view(), p.d_o.view(), p.s0.view(), p.ds1.view()})
                       scale(t, by);
                   }});
  all.push_back(
      {"without_d_o", shape({0, 150}, kSoftplus), [](KdaProblem& p) { fill(p.d_o.view(), 0); }});
  all.push_back({"without_dfinal_state", shape({0, 150}, kSoftplus),
                 [](KdaProblem& p) { fill(p.ds1.view(), 0); }});
  all.push_back(
      {"without_states", shape({0, 150}, kSoftplus), [](KdaProblem& p) { p.with_states = false; }});
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const int32_t T : {1, 2, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129})
    all.push_back({cat("tokens_", T), shape({0, T}, kBounded)});
  add_gates(all);
  add_values(all);
  all.push_back({"packed_15", shape({0, 15}, kBounded)});
  all.push_back({"packed_1000", shape({0, 256, 500, 1000}, kBounded, 1, 1)});
  all.push_back({"packed_2000", shape({0, 15, 100, 300, 1200, 2000}, kSoftplus, 1, 1)});
  std::vector<int32_t> tiny{0};
  for (int64_t d = 0; d < 100; ++d)
    tiny.push_back(tiny.back() + int32_t(41 * noise(6, d, 0, 0)) * (d % 7 != 0));
  all.push_back({"packed_tiny_and_empty", shape(tiny, kBounded, 1, 2, 64)});
  all.push_back({"grouped_2_4", shape({0, 100, 150}, kSoftplus, 2, 4)});
  all.push_back({"grouped_2_8", shape({0, 100}, kBounded, 2, 8)});
  return all;
}

class KdaCuda : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    int count = 0;
    const cudaError_t e = cudaGetDeviceCount(&count);
    if (e != cudaSuccess || count == 0)
      GTEST_SKIP() << "NOT TESTED, no GPU: " << cudaGetErrorName(e) << ": "
                   << cudaGetErrorString(e);
  }
};

TEST_P(KdaCuda, AgreesWithTheRecurrenceInF64) {
  KdaProblem want(GetParam().shape), got(GetParam().shape);
  GetParam().prepare(want);
  round_inputs(want);
  got.take_inputs(want);
  want.run(CpuContext(Mode::reference));
  KdaOnGpu gpu(got);
  gpu.forward();
  gpu.backward();
  gpu.download(got);
  expect_close(GetParam().name, GetParam().bounds, got, want);
}

INSTANTIATE_TEST_SUITE_P(Cases, KdaCuda, ::testing::ValuesIn(cases()),
                         [](const auto& info) { return info.param.name; });

// Twice the same bits; and gradients that are added to.
TEST_F(KdaCuda, SameBitsAgainAndAddedGradients) {
  KdaProblem p(shape({0, 70, 70, 75, 205, 500}, kBounded, 2, 4)), one(p.shape), again(p.shape);
  round_inputs(p);
  KdaOnGpu gpu(p);
  gpu.forward();
  gpu.backward();
  gpu.download(one);
  for (int i = 0; i < 5; ++i) {
    gpu.forward();
    gpu.backward();
    gpu.download(again);
    for (size_t r = 0; r < one.results().size(); ++r)
      ASSERT_TRUE(same_bits(one.results()[r].second, again.results()[r].second))
          << one.results()[r].first;
  }
  KdaBackward b = gpu.backward_args();
  for (Grad* g : {&b.dq, &b.dk, &b.dv, &b.dg, &b.dbeta, &b.dA_log, &b.ddt_bias, &b.dinitial_state})
    g->add = true;
  kda_backward(gpu.ctx, b);
  SLUICE_CUDA(cudaDeviceSynchronize());
  gpu.download(again);
  for (size_t r = 2; r < one.results().size(); ++r) {
    const Tensor once = one.results()[r].second, twice = again.results()[r].second;
    // Rounded to bf16 after the sum: 2^-8 of it.
    for (int64_t e = 0; e < once.numel(); ++e)
      ASSERT_NEAR(element(twice, e), 2 * element(once, e), 0.005 * std::abs(2 * element(once, e)))
          << one.results()[r].first << " " << e;
  }
}

TEST_F(KdaCuda, NoRows) {
  for (const std::vector<int32_t>& cu : {std::vector<int32_t>{0, 0, 0}, std::vector<int32_t>{0}}) {
    KdaProblem p(shape(cu, kBounded)), got(p.shape);
    round_inputs(p);
    got.take_inputs(p);
    KdaOnGpu gpu(got);
    gpu.forward();
    gpu.backward();
    gpu.download(got);
    EXPECT_TRUE(same_bits(got.s1.view(), p.s0.view()));
    EXPECT_TRUE(same_bits(got.ds0.view(), p.ds1.view()));
    for (const Tensor& t : {got.dA_log.view(), got.ddt_bias.view()})
      for (int64_t i = 0; i < t.numel(); ++i) EXPECT_EQ(element(t, i), 0);
  }
}

TEST_F(KdaCuda, RefusesWhatItDoesNotDo) {
  KdaProblem p(shape({0, 3}, kBounded, 1, 1, 12));
  round_inputs(p);
  KdaOnGpu gpu(p);
  try {
    gpu.forward();
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("K is 12"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace sluice::test
