// tests/kernels/sample_test.cpp -- frequencies against the softmax, sets of top_k and top_p, ties.
#include "kernels/sample/sample.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <set>

#include "kernels/tensor/rng.h"
#include "tests/support/op_problem.h"

namespace sluice {
namespace {

struct Drawn {
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;
};

// `draws` tokens of one row of logits, at positions 0, 1, ...
Drawn draw(Mode mode, const std::vector<double>& logits, SampleRule rule, int64_t draws = 1,
           DType dtype = DType::f32) {
  const int64_t V = int64_t(logits.size());
  const Buffer x(dtype, {draws, V + 3}), token(DType::i32, {draws}), logprob(DType::f32, {draws});
  test::fill(x.view(), std::nan(""));
  std::vector<SampleRule> rules;
  for (int64_t n = 0; n < draws; ++n) {
    for (int64_t i = 0; i < V; ++i)
      test::set_element(x.view().columns(2, V), n * V + i, logits[size_t(i)]);
    rules.push_back(rule);
    ++rule.position;
  }
  sample(test::SmallContext(mode), {.logits = x.view().columns(2, V),
                                    .rules = rules,
                                    .token = token.view(),
                                    .logprob = logprob.view()});
  Drawn d;
  for (int64_t n = 0; n < draws; ++n) {
    d.tokens.push_back(token.view().as<int32_t>()[n]);
    d.logprobs.push_back(logprob.view().as<float>()[n]);
  }
  return d;
}

std::vector<double> random_logits(int64_t V, uint64_t seed) {
  std::vector<double> x;
  for (int64_t i = 0; i < V; ++i) x.push_back(double(float(2 * random_normal(seed, uint64_t(i)))));
  return x;
}

// Probabilities of the ids in `kept`, 0 for others.
std::vector<double> softmax(const std::vector<double>& logits, double temperature,
                            const std::set<int32_t>& kept) {
  std::vector<double> p(logits.size(), 0);
  double sum = 0;
  for (const int32_t i : kept) sum += p[size_t(i)] = std::exp(logits[size_t(i)] / temperature);
  for (double& x : p) x /= sum;
  return p;
}

// The sets by their definition.
std::set<int32_t> kept_set(const std::vector<double>& logits, const SampleRule& r) {
  std::vector<int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::stable_sort(ids.begin(), ids.end(),
                   [&](int32_t a, int32_t b) { return logits[size_t(a)] > logits[size_t(b)]; });
  if (r.top_k > 0) ids.resize(std::min(ids.size(), size_t(r.top_k)));
  const std::vector<double> p = softmax(logits, r.temperature, {ids.begin(), ids.end()});
  double sum = 0;
  size_t n = 0;
  while (n < ids.size() && sum < r.top_p) sum += p[size_t(ids[n++])];
  return {ids.begin(), ids.begin() + int64_t(r.top_p < 1 ? n : ids.size())};
}

class SampleTest : public testing::TestWithParam<Mode> {};
INSTANTIATE_TEST_SUITE_P(BackEnds, SampleTest, testing::Values(Mode::run, Mode::reference),
                         [](const auto& p) { return p.param == Mode::run ? "cpu" : "reference"; });

TEST_P(SampleTest, GreedyTakesTheLowestOfEquals) {
  const Drawn d = draw(GetParam(), {1, 3, -1, 3, 3}, {});
  EXPECT_EQ(d.tokens[0], 1);
  EXPECT_NEAR(d.logprobs[0], -std::log(3 + std::exp(-2) + std::exp(-4)), 1e-6);
}

// 20000 draws over 12 ids: chi-square with at most 11 degrees of freedom is below 45 with
// probability 1 - 5e-6. Draws are a function of the position: the test cannot flicker.
TEST_P(SampleTest, FrequenciesAreThoseOfTheSoftmax) {
  const std::vector<double> logits = random_logits(12, 3);
  for (const SampleRule& rule :
       {SampleRule{.temperature = 1, .key = 1}, SampleRule{.temperature = 0.6, .key = 2},
        SampleRule{.temperature = 1.7, .top_k = 5, .key = 3},
        SampleRule{.temperature = 1, .top_p = 0.8, .key = 4},
        SampleRule{.temperature = 2, .top_k = 8, .top_p = 0.7, .key = 5}}) {
    const std::set<int32_t> kept = kept_set(logits, rule);
    const std::vector<double> p = softmax(logits, rule.temperature, kept);
    const int64_t draws = 20000;
    const Drawn d = draw(GetParam(), logits, rule, draws);
    std::vector<double> count(logits.size(), 0);
    for (size_t n = 0; n < d.tokens.size(); ++n) {
      const auto t = size_t(d.tokens[n]);
      ++count[t];
      ASSERT_NEAR(d.logprobs[n], std::log(p[t]), 1e-5);
    }
    double chi_square = 0;
    for (size_t i = 0; i < p.size(); ++i) {
      if (p[i] == 0) {
        EXPECT_EQ(count[i], 0) << i;
      } else {
        const double want = p[i] * double(draws);
        EXPECT_GT(want, 5);  // else chi-square is no approximation
        chi_square += (count[i] - want) * (count[i] - want) / want;
      }
    }
    std::cout << kept.size() << " ids: chi-square " << chi_square << "\n";
    EXPECT_LT(chi_square, 45);
  }
}

// High temperature: every kept id is nearly as likely as another, so 50 draws an id and more meet
// all.
TEST_P(SampleTest, SetsAreExact) {
  for (uint64_t seed = 0; seed < 3; ++seed) {
    const std::vector<double> logits = random_logits(40, seed);
    for (SampleRule rule :
         {SampleRule{.top_k = 1}, SampleRule{.top_k = 7}, SampleRule{.top_k = 40},
          SampleRule{.top_k = 50}, SampleRule{.top_p = 0.01}, SampleRule{.top_p = 0.5},
          SampleRule{.top_p = 0.95}, SampleRule{.top_k = 12, .top_p = 0.6}}) {
      rule.temperature = 20;
      rule.key = seed;
      const Drawn d = draw(GetParam(), logits, rule, 2000);
      EXPECT_EQ(std::set<int32_t>(d.tokens.begin(), d.tokens.end()), kept_set(logits, rule))
          << "top_k " << rule.top_k << ", top_p " << rule.top_p << ", seed " << seed;
    }
  }
}

TEST_P(SampleTest, EqualsAtTheEdgeGoByNumber) {
  for (const SampleRule& rule :
       {SampleRule{.temperature = 1, .top_k = 3}, SampleRule{.temperature = 1, .top_p = 0.6}}) {
    const Drawn d = draw(GetParam(), {1, 1, 1, 1, 1}, rule, 300);
    EXPECT_EQ(std::set<int32_t>(d.tokens.begin(), d.tokens.end()), (std::set<int32_t>{0, 1, 2}));
  }
}

TEST_P(SampleTest, MaskedLogitsAreNeverDrawn) {
  const double inf = INFINITY;
  const Drawn d = draw(GetParam(), {-inf, 0, -inf, 0, -inf}, {.temperature = 1}, 300);
  EXPECT_EQ(std::set<int32_t>(d.tokens.begin(), d.tokens.end()), (std::set<int32_t>{1, 3}));
}

TEST_P(SampleTest, NoNumbersThrow) {
  const double inf = INFINITY, nan = std::nan("");
  for (const std::vector<double>& logits : std::vector<std::vector<double>>{
           {0, nan, 1}, {nan, 0, 1}, {0, 1, nan}, {-inf, -inf}, {0, inf}})
    for (const double temperature : {0.0, 1.0})
      EXPECT_THROW(draw(GetParam(), logits, {.temperature = temperature}), Error);
}

// In f64 both back ends make the same weights; in f32 only a u within rounding of a boundary could
// tell them apart.
TEST(Sample, BackEndsAgree) {
  const std::vector<double> logits = random_logits(1000, 9);
  for (const DType dtype : {DType::f32, DType::f64})
    for (const SampleRule& rule : {SampleRule{.temperature = 1, .key = 7},
                                   SampleRule{.temperature = 1.5, .top_k = 50, .key = 8},
                                   SampleRule{.temperature = 0.8, .top_p = 0.9, .key = 9}}) {
      const Drawn fast = draw(Mode::run, logits, rule, 60, dtype),
                  slow = draw(Mode::reference, logits, rule, 60, dtype);
      EXPECT_EQ(fast.tokens, slow.tokens);
      for (size_t n = 0; n < fast.logprobs.size(); ++n)
        EXPECT_NEAR(fast.logprobs[n], slow.logprobs[n], 1e-5);
    }
}

TEST(Sample, ContractsAreChecked) {
  for (const SampleRule& rule :
       {SampleRule{.temperature = -1}, SampleRule{.temperature = std::nan("")},
        SampleRule{.top_k = -1}, SampleRule{.top_p = 0}, SampleRule{.top_p = 1.5}})
    EXPECT_THROW(draw(Mode::run, {0, 1}, rule), Error);
  EXPECT_THROW(draw(Mode::run, {}, {}), Error);
}

}  // namespace
}  // namespace sluice
