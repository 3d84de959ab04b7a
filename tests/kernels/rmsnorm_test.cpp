// tests/kernels/rmsnorm_test.cpp -- closed forms, gradients, rounding, contract of rmsnorm.
#include "kernels/rmsnorm/rmsnorm.h"

#include <gtest/gtest.h>

#include "tests/support/op_problem.h"

namespace sluice {
namespace {

constexpr double kEps = 0.05;  // large, so that a formula that misplaces it fails

test::MakeProblem rmsnorm(int64_t C) {
  return [C](const test::Setup& setup) {
    test::OpProblem p(setup);
    p.row_input("x", {C});
    p.row_input("dy", {C});
    p.input("w", {C});
    p.row_output("y", {C});
    p.row_output("rstd", {});
    p.row_output("dx", {C});
    p.output("dw", {C});
    p.forward = [](const Context& ctx, const test::OpProblem& t) {
      rmsnorm_forward(ctx, {.x = t["x"], .w = t["w"], .y = t["y"], .rstd = t["rstd"], .eps = kEps});
    };
    p.backward = [](const Context& ctx, const test::OpProblem& t) {
      rmsnorm_backward(ctx, {.x = t["x"],
                             .w = t["w"],
                             .rstd = t["rstd"],
                             .dy = t["dy"],
                             .dx = t.grad("dx"),
                             .dw = t.grad("dw")});
    };
    return p;
  };
}

class RmsNorm : public testing::TestWithParam<Mode> {};
INSTANTIATE_TEST_SUITE_P(BackEnds, RmsNorm, testing::Values(Mode::run, Mode::reference),
                         [](const auto& p) { return p.param == Mode::run ? "cpu" : "reference"; });

// What backward writes of forward's output is that, to the bit.
TEST_P(RmsNorm, BackwardWritesTheSameOutput) {
  for (const DType t : {DType::f32, DType::f64}) {
    const test::OpProblem p = rmsnorm(37)({.dtype = t, .N = 70, .layout = test::Layout::strided});
    const test::SmallContext ctx(GetParam());
    p.run(ctx);
    const Buffer again(t, {70, 37});
    rmsnorm_backward(ctx, {.x = p["x"],
                           .w = p["w"],
                           .rstd = p["rstd"],
                           .dy = p["dy"],
                           .dx = p.grad("dx"),
                           .dw = p.grad("dw"),
                           .y = again.view()});
    test::expect_same_bits(p["y"], again.view(), "y");
  }
}

// Worked out by hand: x = (3, 4), mean of squares 12.5.
TEST_P(RmsNorm, WorkedExample) {
  const test::SmallContext ctx(GetParam());
  const test::OpProblem p = rmsnorm(2)({.dtype = DType::f64, .N = 1});
  const double x[] = {3, 4}, w[] = {2, -1}, dy[] = {1, 10};
  for (int i = 0; i < 2; ++i) {
    test::set_element(p["x"], i, x[i]);
    test::set_element(p["w"], i, w[i]);
    test::set_element(p["dy"], i, dy[i]);
  }
  p.run(ctx);
  const double r = 1 / std::sqrt(12.5 + kEps);
  const double mean = (2 * 1 * 3 - 1 * 10 * 4) / 2.0;  // of w * dy * x
  for (int i = 0; i < 2; ++i) {                        // a few roundings of numbers below 100
    EXPECT_NEAR(test::element(p["y"], i), x[i] * r * w[i], 1e-14);
    EXPECT_NEAR(test::element(p["dx"], i), r * w[i] * dy[i] - x[i] * r * r * r * mean, 1e-14);
    EXPECT_NEAR(test::element(p["dw"], i), dy[i] * x[i] * r, 1e-14);
  }
  EXPECT_NEAR(test::element(p["rstd"], 0), r, 1e-16);
}

// A row of zeros is divided by sqrt(eps), not by 0.
TEST_P(RmsNorm, ZeroRows) {
  const test::OpProblem p = rmsnorm(7)({.dtype = DType::f64, .N = 2});
  test::fill(p["x"], 0);
  p.run(test::SmallContext(GetParam()));
  EXPECT_NEAR(test::element(p["rstd"], 1), 1 / std::sqrt(kEps), 1e-14);
  for (int64_t i = 0; i < 14; ++i) {
    EXPECT_EQ(test::element(p["y"], i), 0);
    EXPECT_NEAR(test::element(p["dx"], i),
                test::element(p["w"], i % 7) * test::element(p["dy"], i) / std::sqrt(kEps), 1e-13);
  }
}

TEST_P(RmsNorm, Gradients) {
  for (int64_t C : {1, 5, 16, 67})
    for (int64_t N : {1, 3, 130}) test::expect_gradients(rmsnorm(C), GetParam(), N);
}

TEST_P(RmsNorm, RowsAreIndependent) {
  for (int64_t C : {1, 33, 192}) test::expect_rows_independent(rmsnorm(C), GetParam(), 150);
}

TEST(RmsNormCpu, AgreesWithReferenceInF64) {
  // rstd: a sum of positive terms in 16 lanes, C/16 roundings of at most half an ulp, halved by the
  // root. y: its error and three products more. dx: likewise, and a difference of two such terms.
  // dw: a sum of N random terms wanders to sqrt(N), each step rounded: about sqrt(N) / 3 ulps, 7.
  for (int64_t C : {1, 5, 16, 192, 200, 768})
    for (int64_t N : {1, 3, 64, 65, 400})
      test::expect_f32_near_reference(rmsnorm(C), N,
                                      {{"rstd", 4}, {"y", 8}, {"dx", 16}, {"dw", 32}});
}

TEST(RmsNormCpu, KeepsTheOpPromises) {
  for (int64_t C : {1, 67, 192}) test::expect_op_promises(rmsnorm(C));
}

TEST(RmsNormContract, ErrorsNameTheValues) {
  const test::SmallContext ctx;
  const test::OpProblem p = rmsnorm(8)({.N = 3}), q = rmsnorm(6)({.dtype = DType::f64, .N = 4});
  const auto forward = [&](auto change) {
    RmsNormForward a{.x = p["x"], .w = p["w"], .y = p["y"], .rstd = p["rstd"], .eps = kEps};
    change(a);
    return test::error_of([&] { rmsnorm_forward(ctx, a); });
  };
  const auto backward = [&](auto change) {
    RmsNormBackward a{.x = p["x"],
                      .w = p["w"],
                      .rstd = p["rstd"],
                      .dy = p["dy"],
                      .dx = {p["dx"]},
                      .dw = {p["dw"]}};
    change(a);
    return test::error_of([&] { rmsnorm_backward(ctx, a); });
  };
  test::expect_part(forward([&](auto&) {}), "no error");
  test::expect_part(forward([&](auto& a) { a.w = q["w"]; }),
                    "w is f64 [6] on cpu, expected f32 [8]");
  test::expect_part(forward([&](auto& a) { a.y = q["y"]; }), "y is f64 [4, 6]");
  test::expect_part(forward([&](auto& a) { a.rstd = {}; }), "rstd is missing");
  test::expect_part(forward([&](auto& a) { a.eps = 0; }), "eps is 0");
  test::expect_part(forward([&](auto& a) { a.x.device = Device::cuda; }),
                    "x is f32 [3, 8] on cuda");
  test::expect_part(backward([&](auto&) {}), "no error");
  test::expect_part(backward([&](auto& a) { a.w = q["w"]; }), "w is f64 [6]");
  test::expect_part(backward([&](auto& a) { a.rstd = q["rstd"]; }), "rstd is f64 [4]");
  test::expect_part(backward([&](auto& a) { a.dy = q["dy"]; }), "dy is f64 [4, 6]");
  test::expect_part(backward([&](auto& a) { a.dx.t = {}; }), "dx is missing");
  test::expect_part(backward([&](auto& a) { a.dw.t = q["dw"]; }), "dw is f64 [6]");
}

}  // namespace
}  // namespace sluice
