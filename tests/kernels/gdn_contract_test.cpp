// tests/kernels/gdn_contract_test.cpp -- errors of its own, and what no other recurrence has.
#include <gtest/gtest.h>

#include "tests/kernels/gdn_problem.h"
#include "tests/support/message.h"

namespace sluice::test {
namespace {

// Exactly 0, not rounding, where a token forgets everything: its own gate has no effect.
TEST(Gdn, TheGateOfTotalForgettingHasNoGradient) {
  for (const GdnParams& params : {GdnParams{}, GdnParams{false, 1}}) {
    GdnProblem p({.H = 1, .HV = 1, .K = 8, .V = 6, .cu = {0, 100}, .params = params}, DType::f32);
    p.decay([](int64_t n, int64_t, int64_t) { return n % 10 == 5 ? -1000 : -0.1; });
    fill(p.dbeta.view(), 0);
    p.run(CpuContext());
    for (int64_t n = 5; n < 100 && params.delta_rule; n += 10)
      EXPECT_EQ(element(p.dg.view(), n), 0) << n;
    EXPECT_TRUE(std::isfinite(element(p.dA_log.view(), 0)));
  }
}

TEST(Gdn, BrokenContractsNameTheValues) {
  CpuContext cpu;
  GdnProblem p({.H = 2, .HV = 4, .K = 8, .V = 6, .cu = {0, 30, 100}, .params = {}});
  auto forward = [&](const std::function<void(GdnForward&)>& change) {
    return [&p, &cpu, change] {
      GdnForward a = p.forward_args();
      change(a);
      gdn_forward(cpu, a);
    };
  };
  expect_message(forward([](GdnForward& a) { a.k = a.k.rows(0, 99); }), "k is f64 [99, 2, 8]");
  expect_message(forward([&](GdnForward& a) { a.v = p.q.view(); }), "g is f64 [100, 4]");
  expect_message(forward([](GdnForward& a) { a.dt_bias = a.dt_bias.rows(0, 3); }), "dt_bias is");
  expect_message(forward([](GdnForward& a) { a.initial_state = a.initial_state.rows(0, 1); }),
                 "initial_state is f64 [1, 4, 8, 6]");
  expect_message(forward([](GdnForward& a) { a.params.beta_max = 3; }), "beta_max is 3");
  expect_message(forward([](GdnForward& a) { a.params.delta_rule = false; }),
                 "beta is f64 [100, 4] on cpu without the delta rule");
  expect_message(forward([](GdnForward& a) {
                   a.params = {false, 2};
                 }),
                 "beta_max is 2 without the delta rule");
  expect_message(
      forward([&](GdnForward& a) { a.saved = make_tensor(a.o.data, DType::u8, Device::cpu, {5}); }),
      "saved is u8 [5]");
  GdnProblem odd({.H = 2, .HV = 3, .K = 8, .V = 6, .cu = {0, 3}, .params = {}});
  expect_message([&] { odd.forward(cpu); }, "value heads 3 are no multiple of heads 2");
  p.cu.view().as<int32_t>()[2] = 99;
  expect_message(forward([](GdnForward&) {}), "ends at 99, expected 100");
  p.cu.view().as<int32_t>()[2] = 100;
  expect_message(
      [&] {
        p.allocate_saved(cpu);
        GdnBackward b = p.backward_args();
        b.ddt_bias.t = p.A_log.view().rows(0, 3);
        gdn_backward(cpu, b);
      },
      "ddt_bias is f64 [3]");
}

}  // namespace
}  // namespace sluice::test
