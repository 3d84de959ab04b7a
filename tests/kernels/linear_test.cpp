// tests/kernels/linear_test.cpp -- closed forms, gradients, rounding, contract of linear.
#include "kernels/linear/linear.h"

#include <gtest/gtest.h>

#include "tests/support/op_problem.h"

namespace sluice {
namespace {

test::MakeProblem linear(int64_t D, int64_t F) {
  return [D, F](const test::Setup& setup) {
    test::OpProblem p(setup);
    p.row_input("x", {D});
    p.row_input("dy", {F});
    p.input("w", {F, D});
    p.row_output("y", {F});
    p.row_output("dx", {D});
    p.output("dw", {F, D});
    p.forward = [](const Context& ctx, const test::OpProblem& t) {
      linear_forward(ctx, {.x = t["x"], .w = t["w"], .y = t["y"]});
    };
    p.backward = [](const Context& ctx, const test::OpProblem& t) {
      linear_backward(
          ctx, {.x = t["x"], .w = t["w"], .dy = t["dy"], .dx = t.grad("dx"), .dw = t.grad("dw")});
    };
    return p;
  };
}

class Linear : public testing::TestWithParam<Mode> {};
INSTANTIATE_TEST_SUITE_P(BackEnds, Linear, testing::Values(Mode::run, Mode::reference),
                         [](const auto& p) { return p.param == Mode::run ? "cpu" : "reference"; });

// Small integers: every product and sum is exact, so that each element is compared without
// tolerance. The sizes pass the edges of the tiles (256 rows, 128 outputs).
TEST_P(Linear, ExactInIntegers) {
  const int64_t N = 259, D = 5, F = 131;
  const test::OpProblem p =
      linear(D, F)({.dtype = DType::f32, .N = N, .layout = test::Layout::strided});
  for (const char* name : {"x", "w", "dy"})
    for (int64_t i = 0; i < p[name].numel(); ++i)
      test::set_element(p[name], i, double(i * 7 % 11) - 5);
  p.run(test::SmallContext(GetParam()));
  const auto x = [&](int64_t n, int64_t d) { return p["x"].row<float>(n)[d]; };
  const auto w = [&](int64_t f, int64_t d) { return p["w"].row<float>(f)[d]; };
  const auto dy = [&](int64_t n, int64_t f) { return p["dy"].row<float>(n)[f]; };
  for (int64_t n = 0; n < N; ++n)
    for (int64_t f = 0; f < F; ++f) {
      float sum = 0;
      for (int64_t d = 0; d < D; ++d) sum += x(n, d) * w(f, d);
      ASSERT_EQ(p["y"].row<float>(n)[f], sum) << n << " " << f;
    }
  for (int64_t d = 0; d < D; ++d) {
    for (int64_t n = 0; n < N; ++n) {
      float sum = 0;
      for (int64_t f = 0; f < F; ++f) sum += dy(n, f) * w(f, d);
      ASSERT_EQ(p["dx"].row<float>(n)[d], sum) << n << " " << d;
    }
    for (int64_t f = 0; f < F; ++f) {
      float sum = 0;
      for (int64_t n = 0; n < N; ++n) sum += dy(n, f) * x(n, d);
      ASSERT_EQ(p["dw"].row<float>(f)[d], sum) << f << " " << d;
    }
  }
}

TEST_P(Linear, Gradients) {
  for (int64_t N : {1, 3, 260}) {
    test::expect_gradients(linear(5, 7), GetParam(), N);
    test::expect_gradients(linear(1, 1), GetParam(), N);
    test::expect_gradients(linear(17, 130), GetParam(), N);
  }
}

// Rows of a slice of a wider matrix: w too may be part of one that is stored fused.
TEST_P(Linear, StridedWeights) {
  const int64_t N = 5, D = 6, F = 130;
  const test::SmallContext ctx(GetParam());
  const test::OpProblem p = linear(D, F)({.N = N});
  p.run(ctx);
  const Buffer wide_w(DType::f32, {F, D + 3}), wide_dw(DType::f32, {F, D + 2});
  const Buffer y(p["y"]), dx(p["dx"]);
  const Tensor w = wide_w.view().columns(1, D), dw = wide_dw.view().columns(2, D);
  test::copy_elements(p["w"], w);
  linear_forward(ctx, {.x = p["x"], .w = w, .y = y.view()});
  linear_backward(ctx, {.x = p["x"], .w = w, .dy = p["dy"], .dx = {dx.view()}, .dw = {dw}});
  test::expect_same_bits(y.view(), p["y"], "y");
  test::expect_same_bits(dx.view(), p["dx"], "dx");
  test::expect_same_bits(dw, p["dw"], "dw");
}

TEST_P(Linear, WithoutDx) {
  const test::SmallContext ctx(GetParam());
  const test::OpProblem p = linear(6, 9)({.N = 300});
  p.run(ctx);
  const Buffer dw(p["dw"]);
  linear_backward(ctx, {.x = p["x"], .w = p["w"], .dy = p["dy"], .dx = {}, .dw = {dw.view()}});
  test::expect_same_bits(dw.view(), p["dw"], "dw");
}

// The cpu back end may differ here: a BLAS picks its kernel by the number of rows.
TEST(LinearReference, RowsAreIndependent) {
  test::expect_rows_independent(linear(33, 20), Mode::reference, 150);
}

TEST(LinearCpu, AgreesWithReferenceInF64) {
  // A sum of K random products wanders to sqrt(K), which is also the rms of the results; each of
  // its K steps is rounded: sqrt(K) / 3 ulps of that in the mean (8 for K = 600), five times at
  // worst.
  for (int64_t N : {1, 3, 65, 600})
    for (const auto& [D, F] : {std::pair<int64_t, int64_t>{1, 1}, {5, 130}, {192, 7}, {67, 300}})
      test::expect_f32_near_reference(linear(D, F), N, {{"y", 32}, {"dx", 32}, {"dw", 64}});
}

TEST(LinearCpu, KeepsTheOpPromises) {
  test::expect_op_promises(linear(5, 7));
  test::expect_op_promises(linear(67, 300));
}

TEST(LinearContract, ErrorsNameTheValues) {
  const test::SmallContext ctx;
  const test::OpProblem p = linear(8, 5)({.N = 3}), q = linear(6, 2)({.dtype = DType::f64, .N = 4});
  const auto forward = [&](auto change) {
    LinearForward a{.x = p["x"], .w = p["w"], .y = p["y"]};
    change(a);
    return test::error_of([&] { linear_forward(ctx, a); });
  };
  const auto backward = [&](auto change) {
    LinearBackward a{.x = p["x"], .w = p["w"], .dy = p["dy"], .dx = {p["dx"]}, .dw = {p["dw"]}};
    change(a);
    return test::error_of([&] { linear_backward(ctx, a); });
  };
  test::expect_part(forward([&](auto&) {}), "no error");
  test::expect_part(forward([&](auto& a) { a.w = q["w"]; }),
                    "w is f64 [2, 6] on cpu, expected f32 [2, 8]");
  test::expect_part(forward([&](auto& a) { a.y = p["x"]; }),
                    "y is f32 [3, 8] on cpu, expected f32 [3, 5]");
  test::expect_part(forward([&](auto& a) { a.y = {}; }), "y is missing");
  test::expect_part(backward([&](auto&) {}), "no error");
  test::expect_part(backward([&](auto& a) { a.dy = q["dy"]; }), "dy is f64 [4, 2]");
  test::expect_part(backward([&](auto& a) { a.dx.t = q["dx"]; }), "dx is f64 [4, 6]");
  test::expect_part(backward([&](auto& a) { a.dw.t = p["w"].rows(1, 4); }),
                    "dw is f32 [4, 8] on cpu, expected f32 [5, 8]");
  test::expect_part(backward([&](auto& a) { a.x = {}; }), "x is missing");
  test::expect_part(backward([&](auto& a) { a.x = {}, a.dw = {}; }), "no error");
  test::expect_part(backward([&](auto& a) { a.dx = {}, a.dw = {}; }),
                    "neither dx nor dw is asked for");
}

}  // namespace
}  // namespace sluice
