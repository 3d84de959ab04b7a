// tests/kernels/gated_rmsnorm_test.cpp -- closed forms, gradients, rounding, contract of
// gated_rmsnorm.
#include "kernels/gated_rmsnorm/gated_rmsnorm.h"

#include <gtest/gtest.h>

#include "tests/support/op_problem.h"

namespace sluice {
namespace {

constexpr double kEps = 0.05;  // large, so that a formula that misplaces it fails

enum class Gate : uint8_t { none, sigmoid, swish };
constexpr Gate kGates[] = {Gate::none, Gate::sigmoid, Gate::swish};

GateActivation activation(Gate gate) {
  return gate == Gate::swish ? GateActivation::swish : GateActivation::sigmoid;
}

test::MakeProblem gated_rmsnorm(int64_t H, int64_t C, Gate gate) {
  return [=](const test::Setup& setup) {
    test::OpProblem p(setup);
    p.row_input("x", {H, C});
    p.row_input("dy", {H, C});
    p.input("w", {C});
    p.row_output("y", {H, C});
    p.row_output("rstd", {H});
    p.row_output("dx", {H, C});
    p.output("dw", {C});
    if (gate != Gate::none) {
      p.row_input("gate", {H, C});
      p.row_output("dgate", {H, C});
    }
    p.forward = [gate](const Context& ctx, const test::OpProblem& t) {
      gated_rmsnorm_forward(ctx, {.x = t["x"],
                                  .gate = gate == Gate::none ? Tensor{} : t["gate"],
                                  .w = t["w"],
                                  .y = t["y"],
                                  .rstd = t["rstd"],
                                  .eps = kEps,
                                  .activation = activation(gate)});
    };
    p.backward = [gate](const Context& ctx, const test::OpProblem& t) {
      gated_rmsnorm_backward(ctx, {.x = t["x"],
                                   .gate = gate == Gate::none ? Tensor{} : t["gate"],
                                   .w = t["w"],
                                   .rstd = t["rstd"],
                                   .dy = t["dy"],
                                   .dx = t.grad("dx"),
                                   .dgate = gate == Gate::none ? Grad{} : t.grad("dgate"),
                                   .dw = t.grad("dw"),
                                   .activation = activation(gate)});
    };
    return p;
  };
}

class GatedRmsNorm : public testing::TestWithParam<Mode> {};
INSTANTIATE_TEST_SUITE_P(BackEnds, GatedRmsNorm, testing::Values(Mode::run, Mode::reference),
                         [](const auto& p) { return p.param == Mode::run ? "cpu" : "reference"; });

double sigmoid(double g) {
  return 1 / (1 + std::exp(-g));
}

// What backward writes of forward's output is that, to the bit.
TEST_P(GatedRmsNorm, BackwardWritesTheSameOutput) {
  for (const Gate gate : kGates)
    for (const DType t : {DType::f32, DType::f64}) {
      const test::OpProblem p = gated_rmsnorm(3, 20, gate)({.dtype = t, .N = 70});
      const test::SmallContext ctx(GetParam());
      p.run(ctx);
      const Buffer again(t, {70, 3, 20});
      const bool gated = gate != Gate::none;
      gated_rmsnorm_backward(ctx, {.x = p["x"],
                                   .gate = gated ? p["gate"] : Tensor{},
                                   .w = p["w"],
                                   .rstd = p["rstd"],
                                   .dy = p["dy"],
                                   .dx = p.grad("dx"),
                                   .dgate = gated ? p.grad("dgate") : Grad{},
                                   .dw = p.grad("dw"),
                                   .activation = activation(gate),
                                   .y = again.view()});
      test::expect_same_bits(p["y"], again.view(), "y");
    }
}

// Every head of every token has a norm of its own, and w is shared.
TEST_P(GatedRmsNorm, ClosedForm) {
  const int64_t N = 4, H = 3, C = 5;
  for (Gate gate : kGates) {
    const test::OpProblem p =
        gated_rmsnorm(H, C, gate)({.dtype = DType::f64, .N = N, .layout = test::Layout::strided});
    p.run(test::SmallContext(GetParam()));
    for (int64_t n = 0; n < N; ++n)
      for (int64_t h = 0; h < H; ++h) {
        double sum = 0;
        for (int64_t c = 0; c < C; ++c) sum += std::pow(p["x"].row<double>(n)[h * C + c], 2);
        const double r = 1 / std::sqrt(sum / double(C) + kEps);
        EXPECT_NEAR(p["rstd"].row<double>(n)[h], r, 1e-14);
        for (int64_t c = 0; c < C; ++c) {
          const int64_t i = h * C + c;
          const double g = gate == Gate::none ? 0 : p["gate"].row<double>(n)[i];
          const double u = gate == Gate::none      ? 1
                           : gate == Gate::sigmoid ? sigmoid(g)
                                                   : g * sigmoid(g);
          // A few roundings of numbers below 10.
          EXPECT_NEAR(p["y"].row<double>(n)[i],
                      p["x"].row<double>(n)[i] * r * p["w"].as<double>()[c] * u, 1e-14);
        }
      }
  }
}

// A gate that lets everything through: sigmoid(100) is 1 to the last bit of f64, its slope 0.
TEST_P(GatedRmsNorm, OpenGateIsThePlainNorm) {
  const test::SmallContext ctx(GetParam());
  const test::OpProblem open = gated_rmsnorm(2, 33, Gate::sigmoid)({.dtype = DType::f64, .N = 70});
  const test::OpProblem plain = gated_rmsnorm(2, 33, Gate::none)({.dtype = DType::f64, .N = 70});
  test::fill(open["gate"], 100);
  open.run(ctx);
  plain.run(ctx);
  for (const char* name : {"y", "rstd", "dx", "dw"})
    test::expect_same_bits(open[name], plain[name], name);
  for (int64_t i = 0; i < open["dgate"].numel(); ++i)
    EXPECT_NEAR(test::element(open["dgate"], i), 0, 1e-40);  // exp(-100) = 4e-44, or 0
}

// The activation saturates without NaN where exp overflows f32.
TEST_P(GatedRmsNorm, LargeGates) {
  for (double g : {-2000.0, -100.0, 100.0, 2000.0})
    for (Gate gate : {Gate::sigmoid, Gate::swish}) {
      const test::OpProblem p = gated_rmsnorm(1, 20, gate)({.N = 3});
      test::fill(p["gate"], g);
      p.run(test::SmallContext(GetParam()));
      for (const char* name : {"y", "dx", "dgate"})
        for (int64_t i = 0; i < 60; ++i) {
          const double v = test::element(p[name], i);
          EXPECT_TRUE(std::isfinite(v)) << name << " at gate " << g;
          // exp(-100) = 4e-44 is 0 up to a few subnormals; times 100 and values below 10.
          if (g < 0) {
            EXPECT_NEAR(v, 0, 1e-40) << name << " at gate " << g;
          }
        }
    }
}

TEST_P(GatedRmsNorm, Gradients) {
  for (Gate gate : kGates)
    for (int64_t N : {1, 3, 130}) {
      test::expect_gradients(gated_rmsnorm(2, 5, gate), GetParam(), N);
      test::expect_gradients(gated_rmsnorm(1, 1, gate), GetParam(), N);
      test::expect_gradients(gated_rmsnorm(3, 33, gate), GetParam(), N);
    }
}

TEST_P(GatedRmsNorm, RowsAreIndependent) {
  for (Gate gate : kGates)
    test::expect_rows_independent(gated_rmsnorm(3, 33, gate), GetParam(), 150);
}

TEST(GatedRmsNormCpu, AgreesWithReferenceInF64) {
  // As in rmsnorm, with the activation's error on top: exp within 2 ulps, a sum, a division and a
  // product. dw sums N * H random terms: sqrt(900) / 3 ulps, 10, three times that at worst.
  // Not one channel: its dx is eps r^3 w dy, what two equal terms leave, so rounding is all of it.
  for (Gate gate : kGates)
    for (const auto& [H, C] : {std::pair<int64_t, int64_t>{1, 4}, {2, 5}, {3, 64}, {2, 130}})
      for (int64_t N : {1, 3, 65, 300})
        test::expect_f32_near_reference(
            gated_rmsnorm(H, C, gate), N,
            {{"rstd", 4}, {"y", 16}, {"dx", 16}, {"dgate", 16}, {"dw", 32}});
}

TEST(GatedRmsNormCpu, KeepsTheOpPromises) {
  for (Gate gate : kGates) {
    test::expect_op_promises(gated_rmsnorm(1, 1, gate));
    test::expect_op_promises(gated_rmsnorm(3, 67, gate));
  }
}

TEST(GatedRmsNormContract, ErrorsNameTheValues) {
  const test::SmallContext ctx;
  const test::OpProblem p = gated_rmsnorm(2, 8, Gate::swish)({.N = 3});
  const test::OpProblem q = gated_rmsnorm(1, 6, Gate::swish)({.dtype = DType::f64, .N = 4});
  const auto forward = [&](auto change) {
    GatedRmsNormForward a{.x = p["x"],
                          .gate = p["gate"],
                          .w = p["w"],
                          .y = p["y"],
                          .rstd = p["rstd"],
                          .eps = kEps,
                          .activation = GateActivation::swish};
    change(a);
    return test::error_of([&] { gated_rmsnorm_forward(ctx, a); });
  };
  const auto backward = [&](auto change) {
    GatedRmsNormBackward a{.x = p["x"],
                           .gate = p["gate"],
                           .w = p["w"],
                           .rstd = p["rstd"],
                           .dy = p["dy"],
                           .dx = {p["dx"]},
                           .dgate = {p["dgate"]},
                           .dw = {p["dw"]},
                           .activation = GateActivation::swish};
    change(a);
    return test::error_of([&] { gated_rmsnorm_backward(ctx, a); });
  };
  test::expect_part(forward([&](auto&) {}), "no error");
  test::expect_part(forward([&](auto& a) { a.gate = q["gate"]; }),
                    "gate is f64 [4, 1, 6] on cpu, expected f32 [3, 2, 8]");
  test::expect_part(forward([&](auto& a) { a.w = q["w"]; }), "w is f64 [6]");
  test::expect_part(forward([&](auto& a) { a.y = {}; }), "y is missing");
  test::expect_part(forward([&](auto& a) { a.rstd = q["rstd"]; }), "rstd is f64 [4, 1]");
  test::expect_part(forward([&](auto& a) { a.eps = -1; }), "eps is -1");
  test::expect_part(backward([&](auto&) {}), "no error");
  test::expect_part(backward([&](auto& a) { a.dy = q["dy"]; }), "dy is f64 [4, 1, 6]");
  test::expect_part(backward([&](auto& a) { a.dx.t = {}; }), "dx is missing");
  test::expect_part(backward([&](auto& a) { a.dgate.t = {}; }), "dgate is missing");
  test::expect_part(backward([&](auto& a) { a.dw.t = q["dw"]; }), "dw is f64 [6]");
  // A gradient that nobody would write is refused, not left as it is.
  test::expect_part(backward([&](auto& a) { a.gate = {}; }),
                    "dgate is f32 [3, 2, 8] on cpu and there is no gate");
}

}  // namespace
}  // namespace sluice
