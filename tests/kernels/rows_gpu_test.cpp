// tests/kernels/rows_gpu_test.cpp -- the CUDA back ends of the ops that work row by row.
//
// Bounds: an output in bf16 is rounded once, to 2^-9 of its value, and computed in f32 from exact
// inputs, with exp good to 2^-21; twice that leaves no room for a wrong term. Sums in f32 over N or
// C terms are good to 1e-5 of their size.
#include <gtest/gtest.h>

#include "kernels/add/add.h"
#include "kernels/gated_rmsnorm/gated_rmsnorm.h"
#include "kernels/rmsnorm/rmsnorm.h"
#include "kernels/sigmoid_gate/sigmoid_gate.h"
#include "kernels/swiglu/swiglu.h"
#include "tests/support/gpu_problem.h"

namespace sluice::test {
namespace {

constexpr double kRounded = .004, kSum = 1e-4, kEps = 0.05;

GpuCase rmsnorm_case(int64_t C) {
  const auto make = [C](const Setup& setup) {
    OpProblem p(setup);
    p.row_input("x", {C}), p.row_input("dy", {C}), p.input("w", {C});
    p.row_output("y", {C}), p.row_output("rstd", {}), p.row_output("dx", {C}), p.output("dw", {C});
    p.row_output("again", {C});
    p.forward = [](const Context& ctx, const OpProblem& t) {
      rmsnorm_forward(ctx, {.x = t["x"], .w = t["w"], .y = t["y"], .rstd = t["rstd"], .eps = kEps});
    };
    p.backward = [](const Context& ctx, const OpProblem& t) {
      rmsnorm_backward(ctx, {.x = t["x"],
                             .w = t["w"],
                             .rstd = t["rstd"],
                             .dy = t["dy"],
                             .dx = t.grad("dx"),
                             .dw = t.grad("dw"),
                             .y = t["again"]});
    };
    return p;
  };
  return {make,
          {"w", "rstd", "dw"},
          {{"y", kRounded}, {"again", kRounded}, {"rstd", 1e-6}, {"dx", kRounded}, {"dw", kSum}}};
}

GpuCase gated_rmsnorm_case(int64_t H, int64_t C, bool gated, GateActivation activation) {
  const auto make = [=](const Setup& setup) {
    OpProblem p(setup);
    p.row_input("x", {H, C}), p.row_input("dy", {H, C}), p.input("w", {C});
    p.row_output("y", {H, C}), p.row_output("dx", {H, C}), p.output("dw", {C});
    p.row_output("rstd", {H}), p.row_output("again", {H, C});
    if (gated) p.row_input("gate", {H, C}), p.row_output("dgate", {H, C});
    const auto gate = [gated](const OpProblem& t) { return gated ? t["gate"] : Tensor{}; };
    p.forward = [=](const Context& ctx, const OpProblem& t) {
      gated_rmsnorm_forward(ctx, {.x = t["x"],
                                  .gate = gate(t),
                                  .w = t["w"],
                                  .y = t["y"],
                                  .rstd = t["rstd"],
                                  .eps = kEps,
                                  .activation = activation});
    };
    p.backward = [=](const Context& ctx, const OpProblem& t) {
      gated_rmsnorm_backward(ctx, {.x = t["x"],
                                   .gate = gate(t),
                                   .w = t["w"],
                                   .rstd = t["rstd"],
                                   .dy = t["dy"],
                                   .dx = t.grad("dx"),
                                   .dgate = gated ? t.grad("dgate") : Grad{},
                                   .dw = t.grad("dw"),
                                   .activation = activation,
                                   .y = t["again"]});
    };
    return p;
  };
  return {.make = make,
          .wide = {"w", "rstd", "dw"},
          .bounds = {{"y", kRounded},
                     {"again", kRounded},
                     {"rstd", 1e-6},
                     {"dx", kRounded},
                     {"dgate", kRounded},
                     {"dw", kSum}}};
}

GpuCase swiglu_case(int64_t F) {
  const auto make = [F](const Setup& setup) {
    OpProblem p(setup);
    p.row_input("gate_up", {2 * F}), p.row_input("dy", {F});
    p.row_output("y", {F}), p.row_output("again", {F}), p.row_output("dgate_up", {2 * F});
    p.forward = [](const Context& ctx, const OpProblem& t) {
      swiglu_forward(ctx, {.gate_up = t["gate_up"], .y = t["y"]});
    };
    p.backward = [](const Context& ctx, const OpProblem& t) {
      swiglu_backward(ctx, {.gate_up = t["gate_up"],
                            .dy = t["dy"],
                            .dgate_up = t.grad("dgate_up"),
                            .y = t["again"]});
    };
    return p;
  };
  return {.make = make,
          .wide = {},
          .bounds = {{"y", kRounded}, {"again", kRounded}, {"dgate_up", kRounded}}};
}

GpuCase sigmoid_gate_case(int64_t C) {
  const auto make = [C](const Setup& setup) {
    OpProblem p(setup);
    p.row_input("x", {C}), p.row_input("gate", {C}), p.row_input("dy", {C});
    p.row_output("y", {C}), p.row_output("dx", {C}), p.row_output("dgate", {C});
    p.forward = [](const Context& ctx, const OpProblem& t) {
      sigmoid_gate_forward(ctx, {.x = t["x"], .gate = t["gate"], .y = t["y"]});
    };
    p.backward = [](const Context& ctx, const OpProblem& t) {
      sigmoid_gate_backward(ctx, {.x = t["x"],
                                  .gate = t["gate"],
                                  .dy = t["dy"],
                                  .dx = t.grad("dx"),
                                  .dgate = t.grad("dgate")});
    };
    return p;
  };
  return {
      .make = make, .wide = {}, .bounds = {{"y", kRounded}, {"dx", kRounded}, {"dgate", kRounded}}};
}

// Dense whatever the layout: [N * C] elements, which need not be a multiple of 8.
GpuCase add_case(int64_t C) {
  const auto make = [C](const Setup& setup) {
    OpProblem p({.dtype = setup.dtype, .N = setup.N});
    p.row_input("a", {C}), p.row_input("b", {C}), p.row_input("dy", {C});
    p.row_output("y", {C}), p.row_output("da", {C}), p.row_output("db", {C});
    p.forward = [](const Context& ctx, const OpProblem& t) {
      add_forward(ctx, {.a = t["a"], .b = t["b"], .y = t["y"]});
    };
    p.backward = [](const Context& ctx, const OpProblem& t) {
      add_backward(ctx, {.dy = t["dy"], .da = t.grad("da"), .db = t.grad("db")});
    };
    return p;
  };
  return {
      .make = make, .wide = {}, .bounds = {{"y", kRounded}, {"da", kRounded}, {"db", kRounded}}};
}

using RowsGpu = GpuTest;

TEST_F(RowsGpu, RmsNorm) {
  for (int64_t C : {1, 5, 64, 200})
    for (int64_t N : {1, 65, 200}) expect_gpu_near_reference(rmsnorm_case(C), N);
  // Where the kernels of whole rows give a thread more channels, and where they end.
  for (int64_t C : {2048, 2056, 4104, 8192, 8200}) expect_gpu_near_reference(rmsnorm_case(C), 5);
  expect_gpu_near_reference(rmsnorm_case(2048), 35);
  expect_gpu_op_promises(rmsnorm_case(200));
  expect_gpu_op_promises(rmsnorm_case(67));
}

TEST_F(RowsGpu, GatedRmsNorm) {
  for (bool gated : {true, false})
    for (const GateActivation activation : {GateActivation::sigmoid, GateActivation::swish})
      for (const auto& [H, C] :
           {std::pair<int64_t, int64_t>{3, 64}, {2, 128}, {1, 256}, {5, 8}, {2, 67}, {3, 1}})
        for (int64_t N : {1, 67}) {
          GpuCase c = gated_rmsnorm_case(H, C, gated, activation);
          if (!gated) c.bounds.erase("dgate");
          expect_gpu_near_reference(c, N);
        }
  expect_gpu_op_promises(gated_rmsnorm_case(4, 128, true, GateActivation::sigmoid));
  expect_gpu_op_promises(gated_rmsnorm_case(2, 67, true, GateActivation::swish));
}

TEST_F(RowsGpu, Swiglu) {
  for (int64_t F : {1, 67, 64, 512})
    for (int64_t N : {1, 3, 100}) expect_gpu_near_reference(swiglu_case(F), N);
  expect_gpu_op_promises(swiglu_case(64));
  expect_gpu_op_promises(swiglu_case(67));
}

TEST_F(RowsGpu, SigmoidGate) {
  for (int64_t C : {1, 67, 64, 512})
    for (int64_t N : {1, 3, 100}) expect_gpu_near_reference(sigmoid_gate_case(C), N);
  expect_gpu_op_promises(sigmoid_gate_case(64));
}

// As the tape does for silu(x): x is its own gate, and the second gradient adds to the first.
TEST_F(RowsGpu, SiluInOneMemory) {
  const int64_t N = 5, C = 72;
  const GpuContext& gpu = GpuContext::shared();
  const OpProblem want = sigmoid_gate_case(C).make({.dtype = DType::f64, .N = N});
  OpProblem got = sigmoid_gate_case(C).make({.N = N});
  round_inputs(got, {});
  copy_inputs(got, want);
  const Tensor x = want["x"], dx = want["dx"];
  sigmoid_gate_backward(CpuContext(Mode::reference),
                        {.x = x, .gate = x, .dy = want["dy"], .dx = {dx}, .dgate = {dx, true}});
  OnGpu on(got, sigmoid_gate_case(C).make, {.N = N}, {});
  const Tensor gx = on.problem()["x"], gdx = on.problem()["dx"];
  sigmoid_gate_backward(
      gpu, {.x = gx, .gate = gx, .dy = on.problem()["dy"], .dx = {gdx}, .dgate = {gdx, true}});
  SLUICE_CUDA(cudaDeviceSynchronize());
  on.download();
  // Rounded twice.
  const ErrorStats e = compare(got["dx"], dx, .008 * 8388608);
  EXPECT_LE(e.worst, 1) << e;
}

TEST_F(RowsGpu, Add) {
  for (int64_t C : {1, 67, 64})
    for (int64_t N : {1, 3, 1000}) expect_gpu_near_reference(add_case(C), N);
  expect_gpu_op_promises(add_case(67));
}

// What backward writes is what forward wrote, to the bit.
TEST_F(RowsGpu, OutputsMadeAgainHaveTheSameBits) {
  for (const GpuCase& c : {rmsnorm_case(2048), rmsnorm_case(67), swiglu_case(512), swiglu_case(67),
                           gated_rmsnorm_case(4, 128, true, GateActivation::sigmoid),
                           gated_rmsnorm_case(2, 67, true, GateActivation::swish),
                           gated_rmsnorm_case(2, 67, false, GateActivation::swish)}) {
    OpProblem p = c.make({.N = 77});
    round_inputs(p, c.wide);
    OnGpu on(p, c.make, {.N = 77}, c.wide);
    on.problem().run(GpuContext::shared());
    SLUICE_CUDA(cudaDeviceSynchronize());
    on.download();
    expect_same_bits(p["y"], p["again"], "again");
  }
}

TEST_F(RowsGpu, OtherTypesAreRefused) {
  const GpuContext& gpu = GpuContext::shared();
  const Buffer x(DType::f32, {3, 8}, Device::cuda), w(DType::f32, {8}, Device::cuda);
  const Buffer rstd(DType::f32, {3}, Device::cuda);
  expect_part(
      error_of([&] {
        rmsnorm_forward(
            gpu, {.x = x.view(), .w = w.view(), .y = x.view(), .rstd = rstd.view(), .eps = kEps});
      }),
      "tensor is f32, asked for bf16");
}

}  // namespace
}  // namespace sluice::test
