// tests/kernels/linear_cross_entropy_test.cpp -- closed forms, gradients and edges of both back
// ends.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/kernels/linear_cross_entropy_case.h"
#include "tests/support/cpu_context.h"

namespace sluice {
namespace {

using test::Case;
using test::CpuContext;
using test::element;
using test::set_element;
using test::Targets;

class LinearCrossEntropy : public testing::TestWithParam<Mode> {};
INSTANTIATE_TEST_SUITE_P(BackEnds, LinearCrossEntropy, testing::Values(Mode::run, Mode::reference),
                         [](const auto& info) {
                           return info.param == Mode::run ? "cpu" : "reference";
                         });

// w = 0: every token has probability 1 / V, whatever h is.
TEST_P(LinearCrossEntropy, UniformLogitsCostLogV) {
  CpuContext ctx(GetParam());
  for (const DType t : {DType::f32, DType::f64}) {
    Case c(t, 70, 5, 33, Targets::all);
    test::fill(c.w.view(), 0);
    // f32: log() and the sum of V exact ones round once each.
    const double tolerance = t == DType::f32 ? 4 * 1.2e-7 * std::log(33.0) : 1e-14;
    EXPECT_NEAR(c.forward(ctx), std::log(33.0), tolerance);
    for (int64_t n = 0; n < 70; ++n) {
      EXPECT_NEAR(element(c.nll.view(), n), std::log(33.0), tolerance);
      EXPECT_NEAR(element(c.lse.view(), n), std::log(33.0), tolerance);
    }
    c.backward(ctx);
    // dw[v] = dloss / N * sum_n (1/V - [v == target]) h[n]
    for (int64_t v = 0; v < 33; ++v)
      for (int64_t d = 0; d < 5; ++d) {
        double want = 0, size = 0;
        for (int64_t n = 0; n < 70; ++n) {
          const double p = 1.0 / 33 - (c.targets.view().as<int32_t>()[n] == v);
          want += 1.75 / 70 * p * element(c.h, n * 5 + d);
          size += 1.75 / 70 * std::abs(p * element(c.h, n * 5 + d));
        }
        // A sum of 70 terms, each of which has rounded a few times.
        EXPECT_NEAR(element(c.dw.view(), v * 5 + d), want,
                    (t == DType::f32 ? 70 * 6e-8 : 70 * 1.2e-16) * size);
      }
  }
}

// h = k e_i and w = identity: logits are k at i and 0 elsewhere.
TEST_P(LinearCrossEntropy, OneHotLogits) {
  CpuContext ctx(GetParam());
  constexpr int64_t kV = 19;
  constexpr double kLogit = 3;
  Case c(DType::f64, kV, kV, kV, Targets::all);
  test::fill(c.h, 0);
  test::fill(c.w.view(), 0);
  for (int64_t i = 0; i < kV; ++i) {
    set_element(c.h, i * kV + i, kLogit);
    set_element(c.w.view(), i * kV + i, 1);
    c.targets.view().as<int32_t>()[i] = int32_t(i % 2 ? 0 : i);  // odd rows name a 0, even ones k
  }
  const double lse = std::log(std::exp(kLogit) + kV - 1);
  c.forward(ctx);
  for (int64_t i = 0; i < kV; ++i)
    EXPECT_NEAR(element(c.nll.view(), i), lse - (i % 2 ? 0 : kLogit), 1e-14) << i;
  c.backward(ctx);
  for (int64_t n = 0; n < kV; ++n)  // w is the identity: dh is dlogits
    for (int64_t v = 0; v < kV; ++v) {
      const double p = std::exp((v == n ? kLogit : 0) - lse), hit = v == (n % 2 ? 0 : n);
      EXPECT_NEAR(element(c.dh, n * kV + v), 1.75 / kV * (p - hit), 1e-15) << n << " " << v;
    }
}

TEST_P(LinearCrossEntropy, GradientsMatchDifferences) {
  CpuContext ctx(GetParam());
  struct Size {
    int64_t N, D, V;
  };
  // Rows around one tile (64), V around one tile of dw (256), both odd.
  for (const auto& [N, D, V] :
       {Size{1, 1, 2}, Size{7, 5, 11}, Size{65, 9, 263}, Size{130, 8, 64}}) {
    Case c(DType::f64, N, D, V, N == 1 ? Targets::all : Targets::some_ignored, 2);
    c.forward(ctx);
    c.backward(ctx);
    auto loss = [&] { return 1.75 * c.forward(ctx); };
    for (uint64_t seed = 10; seed < 13; ++seed) {
      // Differences with h = 1e-5 are good to about 1e-9 here.
      EXPECT_LT(test::gradcheck(loss, c.h, c.dh, seed), 1e-6) << N << " " << D << " " << V;
      EXPECT_LT(test::gradcheck(loss, c.w.view(), c.dw.view(), seed), 1e-6) << N << " " << V;
    }
  }
}

// Uniform logits k: lse = k + log V, nll = log V; z_loss adds z lse^2 to the loss of each valid
// row, and 2 z lse / V to dlogits.
TEST_P(LinearCrossEntropy, ZLossOfUniformLogits) {
  CpuContext ctx(GetParam());
  constexpr int64_t kN = 20, kV = 33;
  constexpr double kLogit = 3, kZ = 0.25;
  Case c(DType::f64, kN, 1, kV, Targets::all);
  test::fill(c.h, kLogit);
  test::fill(c.w.view(), 1);
  c.targets.view().as<int32_t>()[13] = kIgnoreIndex;
  *c.loss_scale.view().as<double>() = 1.0 / (kN - 1);
  c.z_loss = kZ;
  const double log_v = std::log(double(kV)), lse = kLogit + log_v;
  EXPECT_NEAR(c.forward(ctx), log_v + kZ * lse * lse, 1e-13);
  EXPECT_NEAR(element(c.terms.view(), 0), log_v, 1e-14);
  EXPECT_NEAR(element(c.terms.view(), 1), kZ * lse * lse, 1e-13);
  EXPECT_EQ(*c.loss.view().as<double>(), element(c.terms.view(), 0) + element(c.terms.view(), 1));
  EXPECT_NEAR(element(c.nll.view(), 0), log_v, 1e-14);  // cross entropy alone
  c.backward(ctx);
  for (int64_t n = 0; n < kN; ++n)  // dh = sum of dlogits, as w is 1: p - onehot sums to 0
    EXPECT_NEAR(element(c.dh, n), n == 13 ? 0 : 1.75 / (kN - 1) * 2 * kZ * lse, 1e-14) << n;
  for (int64_t v = 0; v < kV; ++v) {
    double hits = 0;
    for (int64_t n = 0; n < kN; ++n) hits += c.targets.view().as<int32_t>()[n] == v;
    const double want =
        kLogit * 1.75 / (kN - 1) * ((1 + 2 * kZ * lse) / double(kV) * (kN - 1) - hits);
    EXPECT_NEAR(element(c.dw.view(), v), want, 1e-13) << v;
  }
}

TEST_P(LinearCrossEntropy, ZLossGradientsMatchDifferences) {
  CpuContext ctx(GetParam());
  Case c(DType::f64, 130, 8, 263, Targets::some_ignored, 2);
  c.z_loss = 0.1;
  c.forward(ctx);
  c.backward(ctx);
  auto loss = [&] { return 1.75 * c.forward(ctx); };
  for (uint64_t seed = 10; seed < 13; ++seed) {  // as above
    EXPECT_LT(test::gradcheck(loss, c.h, c.dh, seed), 1e-6);
    EXPECT_LT(test::gradcheck(loss, c.w.view(), c.dw.view(), seed), 1e-6);
  }
}

// An ignored row gives nothing: loss, nll and dh are 0, and dw is as without that row.
TEST_P(LinearCrossEntropy, IgnoredRowsGiveNothing) {
  CpuContext ctx(GetParam());
  Case c(DType::f64, 20, 6, 17, Targets::all), without(DType::f64, 20, 6, 17, Targets::all);
  *without.loss_scale.view().as<double>() = *c.loss_scale.view().as<double>() = 0.125;
  c.targets.view().as<int32_t>()[13] = kIgnoreIndex;
  without.targets.view().as<int32_t>()[13] = kIgnoreIndex;
  for (int64_t d = 0; d < 6; ++d) set_element(without.h, 13 * 6 + d, 0);
  EXPECT_EQ(c.forward(ctx), without.forward(ctx));
  EXPECT_EQ(element(c.nll.view(), 13), 0);
  EXPECT_TRUE(std::isfinite(element(c.lse.view(), 13)));
  c.backward(ctx);
  without.backward(ctx);
  for (int64_t d = 0; d < 6; ++d) EXPECT_EQ(element(c.dh, 13 * 6 + d), 0);
  for (int64_t i = 0; i < 17 * 6; ++i)
    EXPECT_EQ(element(c.dw.view(), i), element(without.dw.view(), i));
}

TEST_P(LinearCrossEntropy, NoRowsAndNothingButIgnoredRows) {
  CpuContext ctx(GetParam());
  for (const int64_t N : {0, 1, 67, 600})
    for (const DType t : {DType::f32, DType::f64}) {
      Case c(t, N, 3, 10, Targets::none);
      EXPECT_EQ(c.forward(ctx), 0) << N;
      c.backward(ctx);
      for (int64_t i = 0; i < N * 3; ++i) EXPECT_EQ(element(c.dh, i), 0);
      for (int64_t i = 0; i < 30; ++i) EXPECT_EQ(element(c.dw.view(), i), 0);
      test::fill(c.dw.view(), 5);
      c.backward(ctx, true, true);
      for (int64_t i = 0; i < 30; ++i) EXPECT_EQ(element(c.dw.view(), i), 5);
    }
}

TEST_P(LinearCrossEntropy, GradientsAreWrittenOrAddedTo) {
  CpuContext ctx(GetParam());
  Case c(DType::f64, 530, 4, 21);  // more than one block of logits
  c.forward(ctx);
  c.backward(ctx);
  const Buffer dh(c.dh), dw(c.dw.view());
  for (int64_t i = 0; i < c.dh.numel(); ++i) set_element(dh.view(), i, element(c.dh, i));
  copy(c.dw.view(), dw.view());
  test::fill(c.dh, 0.5);
  test::fill(c.dw.view(), -0.25);
  c.backward(ctx, true, true);
  for (int64_t i = 0; i < c.dh.numel(); ++i)
    EXPECT_NEAR(element(c.dh, i), 0.5 + element(dh.view(), i), 1e-15);
  for (int64_t i = 0; i < dw.view().numel(); ++i)
    EXPECT_NEAR(element(c.dw.view(), i), -0.25 + element(dw.view(), i), 1e-15);
}

// Logits of +-1e4: exp() of them overflows in any type, lse - logit does not.
TEST_P(LinearCrossEntropy, GradientsOfTheForwardPassAreThoseOfBackward) {
  CpuContext ctx(GetParam());
  for (const DType t : {DType::f32, DType::f64})
    for (const int64_t N : {0, 70, 600})
      for (const bool add : {false, true}) {
        Case apart(t, N, 5, 33), at_once(t, N, 5, 33);
        for (Case* c : {&apart, &at_once}) {
          c->z_loss = 0.01;
          *c->dloss.view().as<double>() = 1;
          if (add) test::fill(c->dw.view(), 0.5);
        }
        apart.forward(ctx);
        apart.backward(ctx, false, add);
        at_once.forward(ctx, add ? Case::Gradients::dw_added : Case::Gradients::written);
        for (const auto& [a, b] : {std::pair{apart.dh, at_once.dh},
                                   {apart.dw.view(), at_once.dw.view()},
                                   {apart.loss.view(), at_once.loss.view()}})
          for (int64_t i = 0; i < a.numel(); ++i) ASSERT_EQ(element(a, i), element(b, i)) << i;
      }
}

TEST_P(LinearCrossEntropy, ExtremeLogitsStayFinite) {
  CpuContext ctx(GetParam());
  for (const DType t : {DType::f32, DType::f64}) {
    Case c(t, 8, 1, 40, Targets::all);
    for (int64_t n = 0; n < 8; ++n) set_element(c.h, n, n % 2 ? -1e4 : 1e4);
    for (int64_t v = 0; v < 40; ++v) set_element(c.w.view(), v, v == 0 ? 1 : v == 1 ? -1 : 0);
    for (int64_t n = 0; n < 8; ++n) c.targets.view().as<int32_t>()[n] = n < 4 ? 0 : 1;
    // h = 1e4 wants v = 0 and h = -1e4 wants v = 1: half of the rows pay 2e4, the others nothing.
    EXPECT_EQ(c.forward(ctx), 1e4);
    for (int64_t n = 0; n < 8; ++n)
      EXPECT_EQ(element(c.nll.view(), n), (n % 2 == 0) == (n < 4) ? 0 : 2e4) << n;
    c.backward(ctx);
    for (int64_t n = 0; n < 8; ++n) {
      const double want = (n % 2 == 0) == (n < 4) ? 0 : 1.75 / 8 * (n < 4 ? -2 : 2);
      EXPECT_EQ(element(c.dh, n), want) << n;
    }
    for (int64_t v = 0; v < 40; ++v) EXPECT_TRUE(std::isfinite(element(c.dw.view(), v)));
  }
}

TEST_P(LinearCrossEntropy, NllIsOptional) {
  CpuContext ctx(GetParam());
  Case c(DType::f32, 9, 4, 12);
  const double with = c.forward(ctx);
  linear_cross_entropy_forward(ctx, {.h = c.h,
                                     .w = c.w.view(),
                                     .targets = c.targets.view(),
                                     .loss_scale = c.loss_scale.view(),
                                     .loss = c.loss.view(),
                                     .terms = {},
                                     .lse = c.lse.view(),
                                     .nll = {}});
  EXPECT_EQ(*c.loss.view().as<double>(), with);
}

// Random logits, in f64 where no two are equal: with the reference, and more than one block of
// rows.
TEST(LinearCrossEntropy, PredictedMatchesTheReference) {
  CpuContext cpu, reference(Mode::reference);
  Case got(DType::f64, 700, 24, 600), want(DType::f64, 700, 24, 600);
  got.forward(cpu), want.forward(reference);
  for (int64_t n = 0; n < 700; ++n)
    EXPECT_EQ(got.predicted.view().as<int32_t>()[n], want.predicted.view().as<int32_t>()[n]) << n;
}

// The argmax by hand: every one of V places wins somewhere, valid row or not, and of equal logits
// the first.
TEST_P(LinearCrossEntropy, PredictedIsTheFirstLargestLogit) {
  CpuContext ctx(GetParam());
  constexpr int64_t kV = 75;  // lanes of 16 and a tail
  for (const DType t : {DType::f32, DType::f64})
    for (const Targets targets : {Targets::all, Targets::none}) {
      Case c(t, kV, kV, kV, targets);
      test::fill(c.h, 0);
      test::fill(c.w.view(), 0);
      // Logits: 2 at `best` and at the place 32 further on (another block, the same lane), else 0;
      // below 0 all of them in every third row, so that 0 is no safe start for a maximum.
      for (int64_t n = 0; n < kV; ++n) {
        const double shift = n % 3 ? 0 : -5;
        set_element(c.h, n * kV + n, 1);
        for (int64_t v = 0; v < kV; ++v)
          set_element(c.w.view(), v * kV + n, shift + (v == n || v == n + 32 ? 2 : 0));
      }
      c.forward(ctx);
      for (int64_t n = 0; n < kV; ++n) EXPECT_EQ(c.predicted.view().as<int32_t>()[n], n);
      test::fill(c.w.view(), 0);  // all equal
      c.forward(ctx);
      for (int64_t n = 0; n < kV; ++n) EXPECT_EQ(c.predicted.view().as<int32_t>()[n], 0);
    }
}

// A NaN in h must reach the loss: the step is then skipped, rather than trained on half a batch.
TEST_P(LinearCrossEntropy, NanIsNotLost) {
  CpuContext ctx(GetParam());
  for (const int64_t bad : {0, 5}) {  // where in the vocabulary: the max must not hide it
    Case c(DType::f32, 3, 2, 40, Targets::all);
    set_element(c.w.view(), bad * 2, NAN);
    EXPECT_TRUE(std::isnan(c.forward(ctx))) << bad;
  }
}

}  // namespace
}  // namespace sluice
