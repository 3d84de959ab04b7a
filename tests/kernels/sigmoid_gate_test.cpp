// tests/kernels/sigmoid_gate_test.cpp -- closed forms, gradients, rounding, SiLU, contract.
#include "kernels/sigmoid_gate/sigmoid_gate.h"

#include <gtest/gtest.h>

#include "tests/support/op_problem.h"

namespace sluice {
namespace {

test::MakeProblem sigmoid_gate(int64_t C) {
  return [C](const test::Setup& setup) {
    test::OpProblem p(setup);
    for (const char* name : {"x", "gate", "dy"}) p.row_input(name, {C});
    for (const char* name : {"y", "dx", "dgate"}) p.row_output(name, {C});
    p.forward = [](const Context& ctx, const test::OpProblem& t) {
      sigmoid_gate_forward(ctx, {.x = t["x"], .gate = t["gate"], .y = t["y"]});
    };
    p.backward = [](const Context& ctx, const test::OpProblem& t) {
      sigmoid_gate_backward(ctx, {.x = t["x"],
                                  .gate = t["gate"],
                                  .dy = t["dy"],
                                  .dx = t.grad("dx"),
                                  .dgate = t.grad("dgate")});
    };
    return p;
  };
}

// x as its own gate.
test::MakeProblem silu(int64_t C) {
  return [C](const test::Setup& setup) {
    test::OpProblem p(setup);
    for (const char* name : {"x", "dy"}) p.row_input(name, {C});
    for (const char* name : {"y", "dx"}) p.row_output(name, {C});
    p.forward = [](const Context& ctx, const test::OpProblem& t) {
      sigmoid_gate_forward(ctx, {.x = t["x"], .gate = t["x"], .y = t["y"]});
    };
    p.backward = [](const Context& ctx, const test::OpProblem& t) {
      sigmoid_gate_backward(ctx, {.x = t["x"],
                                  .gate = t["x"],
                                  .dy = t["dy"],
                                  .dx = t.grad("dx"),
                                  .dgate = {t["dx"], true}});
    };
    return p;
  };
}

class SigmoidGate : public testing::TestWithParam<Mode> {};
INSTANTIATE_TEST_SUITE_P(BackEnds, SigmoidGate, testing::Values(Mode::run, Mode::reference),
                         [](const auto& p) { return p.param == Mode::run ? "cpu" : "reference"; });

// sigmoid(ln 3) = 3/4 with slope 3/16; sigmoid(0) = 1/2 with slope 1/4. silu'(ln 3) = 3/4 + 3/16
// ln 3.
TEST_P(SigmoidGate, WorkedExample) {
  const test::OpProblem p = sigmoid_gate(2)({.dtype = DType::f64, .N = 1});
  const double g[] = {std::log(3.0), 0}, x[] = {5, -2}, dy[] = {10, 1};
  for (int i = 0; i < 2; ++i) {
    test::set_element(p["x"], i, x[i]);
    test::set_element(p["gate"], i, g[i]);
    test::set_element(p["dy"], i, dy[i]);
  }
  p.run(test::SmallContext(GetParam()));
  const double y[] = {5 * 0.75, -1}, dx[] = {7.5, 0.5}, dg[] = {10 * 5 * 3.0 / 16, -2 * 0.25};
  for (int i = 0; i < 2; ++i) {  // a few roundings
    EXPECT_NEAR(test::element(p["y"], i), y[i], 1e-14);
    EXPECT_NEAR(test::element(p["dx"], i), dx[i], 1e-14);
    EXPECT_NEAR(test::element(p["dgate"], i), dg[i], 1e-14);
  }
  const test::OpProblem s = silu(1)({.dtype = DType::f64, .N = 1});
  test::set_element(s["x"], 0, g[0]);
  test::set_element(s["dy"], 0, 1);
  s.run(test::SmallContext(GetParam()));
  EXPECT_NEAR(test::element(s["y"], 0), 0.75 * g[0], 1e-15);
  EXPECT_NEAR(test::element(s["dx"], 0), 0.75 + 3.0 / 16 * g[0], 1e-15);
}

// Where exp overflows f32 the gate is 0 or 1 and passes no gradient to its logit.
TEST_P(SigmoidGate, LargeValues) {
  for (double g : {-2000.0, -100.0, 100.0, 2000.0}) {
    const test::OpProblem p = sigmoid_gate(20)({.N = 2});
    test::fill(p["gate"], g);
    p.run(test::SmallContext(GetParam()));
    for (int64_t i = 0; i < 40; ++i) {
      // exp(-100) is 4e-44: below the normal range.
      EXPECT_NEAR(test::element(p["y"], i), g > 0 ? test::element(p["x"], i) : 0, 1e-40);
      EXPECT_NEAR(test::element(p["dx"], i), g > 0 ? test::element(p["dy"], i) : 0, 1e-40);
      EXPECT_NEAR(test::element(p["dgate"], i), 0, 1e-40);
    }
  }
}

TEST_P(SigmoidGate, Gradients) {
  for (int64_t C : {1, 5, 67})
    for (int64_t N : {1, 3, 130}) {
      test::expect_gradients(sigmoid_gate(C), GetParam(), N);
      test::expect_gradients(silu(C), GetParam(), N);
    }
}

TEST_P(SigmoidGate, RowsAreIndependent) {
  for (int64_t C : {1, 33}) test::expect_rows_independent(sigmoid_gate(C), GetParam(), 150);
}

TEST(SigmoidGateCpu, AgreesWithReferenceInF64) {
  // exp within 2 ulps, a sum, a division, one to four products. 1 - s is exact to half an ulp of 1
  // only: dy x up to 12 makes that 6 ulps of 1, about 30 of dgate's rms of 0.2.
  for (int64_t C : {1, 16, 67, 512})
    for (int64_t N : {1, 3, 200}) {
      test::expect_f32_near_reference(sigmoid_gate(C), N, {{"y", 6}, {"dx", 6}, {"dgate", 32}});
      test::expect_f32_near_reference(silu(C), N, {{"y", 6}, {"dx", 8}});
    }
}

TEST(SigmoidGateCpu, KeepsTheOpPromises) {
  for (int64_t C : {1, 67}) {
    test::expect_op_promises(sigmoid_gate(C));
    test::expect_op_promises(silu(C));
  }
}

TEST(SigmoidGateContract, ErrorsNameTheValues) {
  const test::SmallContext ctx;
  const test::OpProblem p = sigmoid_gate(4)({.N = 3}),
                        q = sigmoid_gate(6)({.dtype = DType::f64, .N = 3});
  const auto forward = [&](auto change) {
    SigmoidGateForward a{.x = p["x"], .gate = p["gate"], .y = p["y"]};
    change(a);
    return test::error_of([&] { sigmoid_gate_forward(ctx, a); });
  };
  const auto backward = [&](auto change) {
    SigmoidGateBackward a{
        .x = p["x"], .gate = p["gate"], .dy = p["dy"], .dx = {p["dx"]}, .dgate = {p["dgate"]}};
    change(a);
    return test::error_of([&] { sigmoid_gate_backward(ctx, a); });
  };
  test::expect_part(forward([&](auto&) {}), "no error");
  test::expect_part(forward([&](auto& a) { a.gate = q["gate"]; }), "gate is f64 [3, 6]");
  test::expect_part(forward([&](auto& a) { a.y = {}; }), "y is missing");
  test::expect_part(backward([&](auto&) {}), "no error");
  test::expect_part(backward([&](auto& a) { a.dy = q["dy"]; }), "dy is f64 [3, 6]");
  test::expect_part(backward([&](auto& a) { a.dx.t = q["dx"]; }), "dx is f64 [3, 6]");
  test::expect_part(backward([&](auto& a) { a.dgate.t = {}; }), "dgate is missing");
  test::expect_part(backward([&](auto& a) {
                      a.dgate = {p["dx"], false};
                    }),
                    "dx and dgate are one memory, and dgate does not add");
}

}  // namespace
}  // namespace sluice
