// tests/kernels/moe_route_test.cpp -- closed forms, ties, gradients, rounding, contract of route.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "kernels/moe/route/route.h"
#include "tests/support/op_problem.h"

namespace sluice {
namespace {

// The first forward chooses; later ones of the same problem are given that choice, as the
// perturbed runs of a gradient check must be.
test::MakeProblem route(int64_t E, int64_t k, RouteParams params) {
  return [=](const test::Setup& setup) {
    test::OpProblem p(setup);
    p.row_input("logits", {E});
    p.row_input("dweights", {k});
    p.input("bias", {E});
    p.row_output("scores", {E});
    p.row_output("weights", {k});
    p.row_output("dlogits", {E});
    struct Choice {
      Buffer experts;
      bool made = false;
    };
    const auto choice = std::make_shared<Choice>();
    choice->experts = Buffer(DType::i32, {setup.N, k});
    p.forward = [=](const Context& ctx, const test::OpProblem& t) {
      const Tensor experts = choice->experts.view();
      route_forward(ctx, {.logits = t["logits"],
                          .bias = t["bias"],
                          .given = choice->made ? experts : Tensor{},
                          .scores = t["scores"],
                          .experts = experts,
                          .weights = t["weights"],
                          .params = params});
      choice->made = true;
    };
    p.backward = [=](const Context& ctx, const test::OpProblem& t) {
      route_backward(ctx, {.scores = t["scores"],
                           .experts = choice->experts.view(),
                           .dweights = t["dweights"],
                           .dlogits = t.grad("dlogits"),
                           .params = params});
    };
    return p;
  };
}

const std::vector<RouteParams> kLaws = {
    {.score = RouterScore::sigmoid, .renormalize = true, .scale = 2.446},
    {.score = RouterScore::sigmoid, .renormalize = false, .scale = 0.7},
    {.score = RouterScore::softmax, .renormalize = true, .scale = 1},
    {.score = RouterScore::softmax, .renormalize = false, .scale = 16},
};

// One call in f64.
struct Routed {
  std::vector<int32_t> experts;
  std::vector<double> weights;
};
Routed run(Mode mode, DType dtype, int64_t k, const std::vector<double>& logits,
           const std::vector<double>& bias, RouteParams params) {
  const int64_t E = int64_t(bias.size()), N = int64_t(logits.size()) / E;
  const Buffer z(dtype, {N, E}), b(dtype, {E}), s(dtype, {N, E}), w(dtype, {N, k});
  const Buffer experts(DType::i32, {N, k});
  for (size_t i = 0; i < logits.size(); ++i) test::set_element(z.view(), int64_t(i), logits[i]);
  for (size_t i = 0; i < bias.size(); ++i) test::set_element(b.view(), int64_t(i), bias[i]);
  route_forward(test::SmallContext(mode), {.logits = z.view(),
                                           .bias = b.view(),
                                           .given = {},
                                           .scores = s.view(),
                                           .experts = experts.view(),
                                           .weights = w.view(),
                                           .params = params});
  Routed r;
  for (int64_t i = 0; i < N * k; ++i) {
    r.experts.push_back(experts.view().as<int32_t>()[i]);
    r.weights.push_back(test::element(w.view(), i));
  }
  return r;
}

double logit(double p) {
  return std::log(p / (1 - p));
}

class Route : public testing::TestWithParam<Mode> {};
INSTANTIATE_TEST_SUITE_P(BackEnds, Route, testing::Values(Mode::run, Mode::reference),
                         [](const auto& p) { return p.param == Mode::run ? "cpu" : "reference"; });

// Scores 0.8, 0.6, 0.4, 0.2; with the bias 0.8, 0.6, 0.9, 0.2: experts 2 and 0 are chosen, and
// their weights know nothing of the bias.
TEST_P(Route, BiasChoosesAndDoesNotWeigh) {
  const std::vector<double> z = {logit(.8), logit(.6), logit(.4), logit(.2)}, b = {0, 0, .5, 0};
  const Routed shares = run(GetParam(), DType::f64, 2, z, b,
                            {.score = RouterScore::sigmoid, .renormalize = true, .scale = 2.5});
  EXPECT_EQ(shares.experts, (std::vector<int32_t>{2, 0}));
  EXPECT_NEAR(shares.weights[0], 2.5 * .4 / 1.2, 1e-15);
  EXPECT_NEAR(shares.weights[1], 2.5 * .8 / 1.2, 1e-15);
  const Routed scores = run(GetParam(), DType::f64, 2, z, b,
                            {.score = RouterScore::sigmoid, .renormalize = false, .scale = 2.5});
  EXPECT_EQ(scores.experts, shares.experts);
  EXPECT_NEAR(scores.weights[0], 2.5 * .4, 1e-15);
  EXPECT_NEAR(scores.weights[1], 2.5 * .8, 1e-15);
}

TEST_P(Route, Softmax) {
  const std::vector<double> z = {std::log(1), std::log(2), std::log(3), std::log(4)};
  const Routed r = run(GetParam(), DType::f64, 2, z, {.31, 0, 0, 0},
                       {.score = RouterScore::softmax, .renormalize = false, .scale = 1});
  EXPECT_EQ(r.experts, (std::vector<int32_t>{0, 3}));  // 0.1 + 0.31 against 0.4
  EXPECT_NEAR(r.weights[0], 0.1, 1e-15);
  EXPECT_NEAR(r.weights[1], 0.4, 1e-15);
}

// As published, a single choice is not renormalised: it would always weigh 1.
TEST_P(Route, OneChoiceKeepsItsScore) {
  const Routed r = run(GetParam(), DType::f64, 1, {logit(.25), logit(.75)}, {0, 0},
                       {.score = RouterScore::sigmoid, .renormalize = true, .scale = 2});
  EXPECT_EQ(r.experts, (std::vector<int32_t>{1}));
  EXPECT_NEAR(r.weights[0], 1.5, 1e-15);
}

TEST_P(Route, TiesGoToTheLowestIndex) {
  const std::vector<double> same(6, 0.3);
  EXPECT_EQ(run(GetParam(), DType::f32, 3, same, std::vector<double>(6, 0), {}).experts,
            (std::vector<int32_t>{0, 1, 2}));
  EXPECT_EQ(run(GetParam(), DType::f32, 3, same, {0, 1, 0, 1, 1, 0}, {}).experts,
            (std::vector<int32_t>{1, 3, 4}));
  // 40 and 90 are one score in f32: 1. The lower index wins, not the larger logit.
  EXPECT_EQ(run(GetParam(), DType::f32, 2, {0, 40, 90, 1}, {0, 0, 0, 0}, {}).experts,
            (std::vector<int32_t>{1, 2}));
}

// Every choice is a plain sort's, whatever E and k.
TEST_P(Route, EqualsASort) {
  for (const auto& [E, k] :
       {std::pair<int64_t, int64_t>{1, 1}, {2, 2}, {7, 3}, {64, 8}, {33, 33}}) {
    std::vector<double> z, b;
    const int64_t N = 50;
    for (int64_t i = 0; i < N * E; ++i) z.push_back(random_normal(3, uint64_t(i)));
    for (int64_t e = 0; e < E; ++e) b.push_back(0.2 * random_normal(4, uint64_t(e)));
    const Routed r = run(GetParam(), DType::f64, k, z, b, {});
    for (int64_t n = 0; n < N; ++n) {
      std::vector<int32_t> order(static_cast<size_t>(E));
      std::iota(order.begin(), order.end(), 0);
      const double* row = &z[size_t(n * E)];  // clang 14 captures no structured binding
      const auto value = [&](int32_t e) { return 1 / (1 + std::exp(-row[e])) + b[size_t(e)]; };
      std::stable_sort(order.begin(), order.end(),
                       [&](int32_t x, int32_t y) { return value(x) > value(y); });
      for (int64_t j = 0; j < k; ++j)
        ASSERT_EQ(r.experts[size_t(n * k + j)], order[size_t(j)]) << E << " " << k << " " << n;
    }
  }
}

// Scores that underflow weigh nothing and are not 0 / 0; NaN still goes to k different experts.
TEST_P(Route, ExtremeLogits) {
  const Routed zero = run(GetParam(), DType::f32, 2, {-1e4, -2e4, -3e4}, {0, 0, 0}, {});
  EXPECT_EQ(zero.experts, (std::vector<int32_t>{0, 1}));
  EXPECT_EQ(zero.weights, (std::vector<double>{0, 0}));
  for (const RouterScore score : {RouterScore::sigmoid, RouterScore::softmax}) {
    const Routed nan =
        run(GetParam(), DType::f32, 3, {1, NAN, 2, NAN, NAN}, {0, 0, 0, 0, 0}, {.score = score});
    EXPECT_EQ(std::set<int32_t>(nan.experts.begin(), nan.experts.end()).size(), 3u);
    for (const int32_t e : nan.experts) EXPECT_TRUE(e >= 0 && e < 5) << e;
    EXPECT_TRUE(std::isnan(nan.weights[0] + nan.weights[1] + nan.weights[2]));
  }
}

TEST_P(Route, AGivenChoiceIsTaken) {
  const Buffer z(DType::f64, {1, 3}), b(DType::f64, {3}), s(DType::f64, {1, 3}),
      w(DType::f64, {1, 2});
  const Buffer given(DType::i32, {1, 2}), experts(DType::i32, {1, 2});
  test::set_element(z.view(), 0, 5);
  given.view().as<int32_t>()[0] = 2;
  given.view().as<int32_t>()[1] = 1;
  route_forward(test::SmallContext(GetParam()), {.logits = z.view(),
                                                 .bias = b.view(),
                                                 .given = given.view(),
                                                 .scores = s.view(),
                                                 .experts = experts.view(),
                                                 .weights = w.view(),
                                                 .params = {}});
  EXPECT_EQ(experts.view().as<int32_t>()[0], 2);
  EXPECT_EQ(experts.view().as<int32_t>()[1], 1);
  EXPECT_NEAR(test::element(w.view(), 0), 0.5, 1e-15);
}

// c = 2.5, S = 1.2: ds = c/S (dw - <dw, p>), dz = ds s (1 - s), nothing for who was not chosen.
TEST_P(Route, GradientInClosedForm) {
  const test::OpProblem p =
      route(4, 2, {.score = RouterScore::sigmoid, .renormalize = true, .scale = 2.5})(
          {.dtype = DType::f64, .N = 1});
  const double z[] = {logit(.8), logit(.6), logit(.4), logit(.2)}, b[] = {0, 0, .5, 0};
  for (int i = 0; i < 4; ++i) test::set_element(p["logits"], i, z[i]);
  for (int i = 0; i < 4; ++i) test::set_element(p["bias"], i, b[i]);
  test::set_element(p["dweights"], 0, 1);
  test::set_element(p["dweights"], 1, 0);
  p.run(test::SmallContext(GetParam()));
  const double want[] = {2.5 / 1.2 * (-1. / 3) * .16, 0, 2.5 / 1.2 * (2. / 3) * .24, 0};
  for (int i = 0; i < 4; ++i) EXPECT_NEAR(test::element(p["dlogits"], i), want[i], 1e-15) << i;
}

TEST_P(Route, Gradients) {
  for (const RouteParams& law : kLaws)
    for (const auto& [E, k] : {std::pair<int64_t, int64_t>{1, 1}, {4, 1}, {6, 2}, {9, 9}, {40, 5}})
      for (int64_t N : {1, 3, 70}) {
        // One expert and its softmax: the weight is a constant, no gradient to be relative to.
        if (E == 1 && law.score == RouterScore::softmax) continue;
        test::expect_gradients(route(E, k, law), GetParam(), N);
      }
}

TEST_P(Route, RowsAreIndependent) {
  for (const RouteParams& law : kLaws)
    test::expect_rows_independent(route(9, 3, law), GetParam(), 150);
}

TEST(RouteCpu, AgreesWithReferenceInF64) {
  // exp within 2 ulps, then sums of at most E terms and a handful of products; a gradient is a
  // difference of terms about as large as itself.
  for (const RouteParams& law : kLaws)
    for (const auto& [E, k] : {std::pair<int64_t, int64_t>{4, 1}, {6, 2}, {40, 5}})
      for (int64_t N : {1, 3, 200})
        test::expect_f32_near_reference(route(E, k, law), N,
                                        {{"scores", 8}, {"weights", 16}, {"dlogits", 32}});
}

TEST(RouteCpu, KeepsTheOpPromises) {
  for (const RouteParams& law : kLaws) test::expect_op_promises(route(9, 3, law));
}

TEST(RouteContract, ErrorsNameTheValues) {
  const test::SmallContext ctx;
  const Buffer z(DType::f32, {3, 4}), b(DType::f32, {4}), w(DType::f32, {3, 2}),
      w5(DType::f32, {3, 5});
  const Buffer experts(DType::i32, {3, 2}), experts5(DType::i32, {3, 5}), wide(DType::f64, {3, 4});
  const auto forward = [&](auto change) {
    RouteForward a{.logits = z.view(),
                   .bias = b.view(),
                   .given = {},
                   .scores = z.view(),
                   .experts = experts.view(),
                   .weights = w.view(),
                   .params = {}};
    change(a);
    return test::error_of([&] { route_forward(ctx, a); });
  };
  const auto backward = [&](auto change) {
    RouteBackward a{.scores = z.view(),
                    .experts = experts.view(),
                    .dweights = w.view(),
                    .dlogits = {z.view()},
                    .params = {}};
    change(a);
    return test::error_of([&] { route_backward(ctx, a); });
  };
  test::expect_part(forward([&](auto&) {}), "no error");
  test::expect_part(forward([&](auto& a) { a.bias = w.view(); }),
                    "bias is f32 [3, 2] on cpu, expected f32 [4]");
  test::expect_part(forward([&](auto& a) { a.scores = wide.view(); }), "scores is f64 [3, 4]");
  test::expect_part(forward([&](auto& a) {
                      a.weights = w5.view();
                      a.experts = experts5.view();
                    }),
                    "5 choices of 4 experts");
  test::expect_part(forward([&](auto& a) { a.given = experts5.view(); }), "given");
  test::expect_part(backward([&](auto&) {}), "no error");
  test::expect_part(backward([&](auto& a) { a.dweights = w5.view(); }), "dweights is f32 [3, 5]");
  test::expect_part(backward([&](auto& a) { a.dlogits.t = {}; }), "dlogits is missing");
  experts.view().as<int32_t>()[3] = 4;
  test::expect_part(backward([&](auto&) {}), "experts: of token 1 is 4, there are 4");
  test::expect_part(forward([&](auto& a) { a.given = experts.view(); }), "given: of token 1 is 4");
}

}  // namespace
}  // namespace sluice
