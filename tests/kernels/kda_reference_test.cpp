// tests/kernels/kda_reference_test.cpp -- the recurrence against closed forms and finite
// differences.
#include <gtest/gtest.h>

#include <cstring>

#include "tests/kernels/kda_problem.h"

namespace sluice::test {
namespace {

// Keys and queries that the norm leaves as they are up to its epsilon: unit rows times 1e6.
void unit_key(const Tensor& t, int64_t n, int64_t channel) {
  for (int64_t d = 0; d < t.dim(2); ++d) set_element(t, n * t.dim(2) + d, d == channel ? 1e6 : 0);
}

TEST(KdaReference, OneTokenReadsWhatItWrote) {
  CpuContext cpu(Mode::reference);
  KdaProblem p({.H = 1, .HV = 1, .K = 4, .V = 3, .cu = {0, 1}, .params = {}});
  p.with_states = false;
  p.forward(cpu);
  double qk = 0, qq = 1e-6, kk = 1e-6;
  for (int64_t d = 0; d < 4; ++d) {
    qk += element(p.q.view(), d) * element(p.k.view(), d);
    qq += element(p.q.view(), d) * element(p.q.view(), d);
    kk += element(p.k.view(), d) * element(p.k.view(), d);
  }
  const double beta = 1 / (1 + std::exp(-element(p.beta.view(), 0)));
  for (int64_t j = 0; j < 3; ++j)
    EXPECT_NEAR(element(p.o.view(), j), beta * qk / std::sqrt(qq * kk) / 2 * element(p.v.view(), j),
                1e-15);
}

TEST(KdaReference, TotalForgetLeavesOnlyTheLastWrite) {
  CpuContext cpu(Mode::reference);
  KdaProblem p({.H = 1, .HV = 1, .K = 4, .V = 3, .cu = {0, 5}, .params = {}});
  p.decay([](int64_t, int64_t, int64_t) { return -1000.0; });
  p.forward(cpu);
  for (int64_t n = 0; n < 5; ++n) {
    double qk = 0, qq = 1e-6, kk = 1e-6;
    for (int64_t d = n * 4; d < n * 4 + 4; ++d) {
      qk += element(p.q.view(), d) * element(p.k.view(), d);
      qq += element(p.q.view(), d) * element(p.q.view(), d);
      kk += element(p.k.view(), d) * element(p.k.view(), d);
    }
    const double beta = 1 / (1 + std::exp(-element(p.beta.view(), n)));
    for (int64_t j = 0; j < 3; ++j)
      EXPECT_NEAR(element(p.o.view(), n * 3 + j),
                  beta * qk / std::sqrt(qq * kk) / 2 * element(p.v.view(), n * 3 + j), 1e-15);
  }
}

TEST(KdaReference, WithoutWritesTheStateOnlyDecays) {
  CpuContext cpu(Mode::reference);
  KdaProblem p({.H = 1, .HV = 1, .K = 4, .V = 3, .cu = {0, 7}, .params = {}});
  fill(p.beta.view(), -1000);  // beta = 0
  p.decay([](int64_t, int64_t, int64_t d) { return -0.25 * double(d); });
  p.forward(cpu);
  for (int64_t i = 0; i < 12; ++i)  // 1e-6: the logits were rounded to f32
    EXPECT_NEAR(element(p.s1.view(), i),
                element(p.s0.view(), i) * std::exp(-7 * 0.25 * double(i / 3)), 1e-6);
}

TEST(KdaReference, OrthonormalKeysOverwrite) {
  CpuContext cpu(Mode::reference);
  KdaProblem p({.H = 1, .HV = 1, .K = 4, .V = 3, .cu = {0, 8}, .params = {}});
  p.with_states = false;
  p.decay([](int64_t, int64_t, int64_t) { return 0.0; });
  fill(p.beta.view(), 1000);  // beta = 1
  for (int64_t n = 0; n < 8; ++n) {
    unit_key(p.k.view(), n, n % 4);
    unit_key(p.q.view(), n, n % 4);  // reads what was just written over an older value
  }
  p.forward(cpu);
  for (int64_t i = 0; i < 24; ++i)  // K^-1/2 = 1/2; the epsilon changes a norm by 1e-18
    EXPECT_NEAR(element(p.o.view(), i), 0.5 * element(p.v.view(), i), 1e-14);
}

struct GradCase {
  const char* name;
  KdaShape shape;
};

class KdaGradients : public ::testing::TestWithParam<GradCase> {};

// 1e-6: truncation and rounding of central differences are near 1e-10, divided by how much of a
// gradient's norm the random direction happens to see.
TEST_P(KdaGradients, AgreeWithDifferences) {
  for (const Mode mode : {Mode::reference, Mode::run}) {
    CpuContext cpu(mode);
    KdaProblem p(GetParam().shape);
    p.run(cpu);
    const auto in = p.inputs(), grad = p.gradients();
    for (size_t i = 0; i < grad.size(); ++i)
      EXPECT_LT(gradcheck([&] { return p.loss(cpu); }, in[i].second, grad[i].second, 100 + i), 1e-6)
          << grad[i].first << (mode == Mode::run ? ", chunked" : ", reference");
  }
}

constexpr KdaParams kBounded{GateLaw::bounded, -5, 1}, kNegative{GateLaw::softplus, -5, 2};

INSTANTIATE_TEST_SUITE_P(
    Shapes, KdaGradients,
    ::testing::Values(
        GradCase{"softplus", {.cu = {0, 20}, .params = {}}},
        GradCase{"bounded", {.cu = {0, 20}, .params = kBounded}},
        GradCase{"grouped", {.H = 2, .HV = 6, .K = 5, .V = 3, .cu = {0, 9}, .params = kNegative}},
        GradCase{"packed",
                 {.H = 1, .HV = 2, .K = 3, .V = 7, .cu = {0, 0, 1, 18, 18, 35}, .params = {}}},
        GradCase{"chunks", {.H = 1, .HV = 1, .K = 4, .V = 4, .cu = {0, 130}, .params = kBounded}}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(KdaReference, PackingChangesNoBit) {
  CpuContext cpu(Mode::reference);
  for (const DType type : {DType::f32, DType::f64}) {
    KdaProblem packed({.H = 1, .HV = 2, .K = 5, .V = 4, .cu = {0, 7, 7, 20, 33}, .params = {}},
                      type);
    packed.run(cpu);
    for (int64_t doc = 0; doc < 4; ++doc) {
      const int32_t begin = packed.shape.cu[size_t(doc)];
      KdaShape one = packed.shape;
      one.cu = {0, packed.shape.cu[size_t(doc) + 1] - begin};
      KdaProblem alone(one, type);
      const auto all = packed.inputs(), mine = alone.inputs();
      for (size_t i = 0; i < all.size(); ++i) {
        const Tensor& to = mine[i].second;
        const bool parameter = all[i].first == "A_log" || all[i].first == "dt_bias";
        const bool state = to.rank == 4;
        copy(parameter ? all[i].second
                       : all[i].second.rows(state ? doc : begin, state ? 1 : one.N()),
             to);
      }
      alone.run(cpu);
      const auto got = packed.results(), want = alone.results();
      for (size_t i = 0; i < got.size(); ++i) {
        if (got[i].first == "dA_log" || got[i].first == "ddt_bias")
          continue;  // sums over documents
        const bool state = got[i].second.rank == 4;
        EXPECT_TRUE(
            same_bits(got[i].second.rows(state ? doc : begin, state ? 1 : one.N()), want[i].second))
            << got[i].first << " of document " << doc;
      }
    }
  }
}

}  // namespace
}  // namespace sluice::test
