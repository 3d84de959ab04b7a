// tests/kernels/swiglu_test.cpp -- closed forms, gradients, rounding, contract of swiglu.
#include "kernels/swiglu/swiglu.h"

#include <gtest/gtest.h>

#include "tests/support/op_problem.h"

namespace sluice {
namespace {

test::MakeProblem swiglu(int64_t F) {
  return [F](const test::Setup& setup) {
    test::OpProblem p(setup);
    p.row_input("gate_up", {2 * F});
    p.row_input("dy", {F});
    p.row_output("y", {F});
    p.row_output("dgate_up", {2 * F});
    p.forward = [](const Context& ctx, const test::OpProblem& t) {
      swiglu_forward(ctx, {.gate_up = t["gate_up"], .y = t["y"]});
    };
    p.backward = [](const Context& ctx, const test::OpProblem& t) {
      swiglu_backward(ctx,
                      {.gate_up = t["gate_up"], .dy = t["dy"], .dgate_up = t.grad("dgate_up")});
    };
    return p;
  };
}

class Swiglu : public testing::TestWithParam<Mode> {};
INSTANTIATE_TEST_SUITE_P(BackEnds, Swiglu, testing::Values(Mode::run, Mode::reference),
                         [](const auto& p) { return p.param == Mode::run ? "cpu" : "reference"; });

// silu(ln 3) = ln 3 * 3/4, its slope 3/4 * (1 + ln 3 / 4); silu(0) = 0 with slope 1/2.
TEST_P(Swiglu, WorkedExample) {
  const test::OpProblem p = swiglu(2)({.dtype = DType::f64, .N = 1});
  const double g = std::log(3.0), gate_up[] = {g, 0, 5, -2}, dy[] = {10, 1};
  for (int i = 0; i < 4; ++i) test::set_element(p["gate_up"], i, gate_up[i]);
  for (int i = 0; i < 2; ++i) test::set_element(p["dy"], i, dy[i]);
  p.run(test::SmallContext(GetParam()));
  EXPECT_NEAR(test::element(p["y"], 0), g * 0.75 * 5, 1e-14);  // a few roundings
  EXPECT_EQ(test::element(p["y"], 1), 0);
  const double want[] = {10 * 5 * 0.75 * (1 + g / 4), -2 * 0.5, 10 * g * 0.75, 0};
  for (int i = 0; i < 4; ++i) EXPECT_NEAR(test::element(p["dgate_up"], i), want[i], 1e-13) << i;
}

// What backward writes of forward's output is that, to the bit.
TEST_P(Swiglu, BackwardWritesTheSameOutput) {
  for (const DType t : {DType::f32, DType::f64}) {
    const test::OpProblem p = swiglu(37)({.dtype = t, .N = 70, .layout = test::Layout::strided});
    const test::SmallContext ctx(GetParam());
    p.run(ctx);
    const Buffer again(t, {70, 37});
    swiglu_backward(ctx, {.gate_up = p["gate_up"],
                          .dy = p["dy"],
                          .dgate_up = p.grad("dgate_up"),
                          .y = again.view()});
    test::expect_same_bits(p["y"], again.view(), "y");
  }
}

// Where exp overflows f32 silu is 0 or the identity.
TEST_P(Swiglu, LargeValues) {
  for (double g : {-2000.0, -100.0, -88.5, 88.5, 100.0, 2000.0}) {
    const int64_t F = 20;
    const test::OpProblem p = swiglu(F)({.N = 2});
    for (int64_t n = 0; n < 2; ++n)
      for (int64_t f = 0; f < F; ++f) p["gate_up"].row<float>(n)[f] = float(g);
    p.run(test::SmallContext(GetParam()));
    for (int64_t n = 0; n < 2; ++n)
      for (int64_t f = 0; f < F; ++f) {
        const float u = p["gate_up"].row<float>(n)[F + f], dy = p["dy"].row<float>(n)[f];
        // exp(-88.5) is 4e-39: below the normal range, times 100 and values below 10.
        EXPECT_NEAR(p["y"].row<float>(n)[f], g > 0 ? float(g) * u : 0, 1e-35) << g;
        EXPECT_NEAR(p["dgate_up"].row<float>(n)[f], g > 0 ? dy * u : 0, 1e-35) << g;
        EXPECT_NEAR(p["dgate_up"].row<float>(n)[F + f], g > 0 ? dy * float(g) : 0, 1e-35) << g;
      }
  }
}

TEST_P(Swiglu, Gradients) {
  for (int64_t F : {1, 5, 67})
    for (int64_t N : {1, 3, 130}) test::expect_gradients(swiglu(F), GetParam(), N);
}

TEST_P(Swiglu, RowsAreIndependent) {
  for (int64_t F : {1, 33}) test::expect_rows_independent(swiglu(F), GetParam(), 150);
}

TEST(SwigluCpu, AgreesWithReferenceInF64) {
  // exp within 2 ulps, a sum, a division, three to five products and sums.
  for (int64_t F : {1, 16, 67, 512})
    for (int64_t N : {1, 3, 200})
      test::expect_f32_near_reference(swiglu(F), N, {{"y", 8}, {"dgate_up", 8}});
}

TEST(SwigluCpu, KeepsTheOpPromises) {
  for (int64_t F : {1, 67}) test::expect_op_promises(swiglu(F));
}

TEST(SwigluContract, ErrorsNameTheValues) {
  const test::SmallContext ctx;
  const test::OpProblem p = swiglu(4)({.N = 3}), q = swiglu(6)({.dtype = DType::f64, .N = 2});
  const auto forward = [&](auto change) {
    SwigluForward a{.gate_up = p["gate_up"], .y = p["y"]};
    change(a);
    return test::error_of([&] { swiglu_forward(ctx, a); });
  };
  const auto backward = [&](auto change) {
    SwigluBackward a{.gate_up = p["gate_up"], .dy = p["dy"], .dgate_up = {p["dgate_up"]}};
    change(a);
    return test::error_of([&] { swiglu_backward(ctx, a); });
  };
  test::expect_part(forward([&](auto&) {}), "no error");
  test::expect_part(forward([&](auto& a) { a.gate_up = p["y"]; }),
                    "gate_up is f32 [3, 4] on cpu, expected f32 [3, 8]");
  test::expect_part(forward([&](auto& a) { a.y.dtype = DType::f64; }), "y is f64 [3, 4]");
  test::expect_part(backward([&](auto&) {}), "no error");
  test::expect_part(backward([&](auto& a) { a.dy = q["dy"]; }), "expected f32 [3, 12]");
  test::expect_part(backward([&](auto& a) { a.dgate_up.t = {}; }), "dgate_up is missing");
}

}  // namespace
}  // namespace sluice
