// tests/kernels/kda_contract_test.cpp -- errors of its own, and what no other recurrence has.
#include <gtest/gtest.h>

#include "tests/kernels/kda_problem.h"
#include "tests/support/message.h"

namespace sluice::test {
namespace {

TEST(Kda, BrokenContractsNameTheValues) {
  CpuContext cpu;
  KdaProblem p({.H = 2, .HV = 4, .K = 8, .V = 6, .cu = {0, 30, 100}, .params = {}});
  auto forward = [&](const std::function<void(KdaForward&)>& change) {
    return [&p, &cpu, change] {
      KdaForward a = p.forward_args();
      change(a);
      kda_forward(cpu, a);
    };
  };
  expect_message(forward([](KdaForward& a) { a.k = a.k.rows(0, 99); }), "k is f64 [99, 2, 8]");
  expect_message(forward([&](KdaForward& a) { a.v = p.q.view(); }), "g is f64 [100, 4, 8]");
  expect_message(forward([](KdaForward& a) { a.dt_bias = a.dt_bias.rows(0, 3); }), "dt_bias is");
  expect_message(forward([](KdaForward& a) { a.initial_state = a.initial_state.rows(0, 1); }),
                 "initial_state is f64 [1, 4, 8, 6]");
  expect_message(forward([](KdaForward& a) { a.params.beta_max = 3; }), "beta_max is 3");
  expect_message(forward([](KdaForward& a) {
                   a.params = {GateLaw::bounded, 1, 1};
                 }),
                 "gate_lower_bound is 1");
  expect_message(
      forward([&](KdaForward& a) { a.saved = make_tensor(a.o.data, DType::u8, Device::cpu, {5}); }),
      "saved is u8 [5]");
  KdaProblem odd({.H = 2, .HV = 3, .K = 8, .V = 6, .cu = {0, 3}, .params = {}});
  expect_message([&] { odd.forward(cpu); }, "value heads 3 are no multiple of heads 2");
  p.cu.view().as<int32_t>()[2] = 99;
  expect_message(forward([](KdaForward&) {}), "ends at 99, expected 100");
  p.cu.view().as<int32_t>()[2] = 100;
  expect_message(
      [&] {
        p.allocate_saved(cpu);
        KdaBackward b = p.backward_args();
        b.ddt_bias.t = p.A_log.view();
        kda_backward(cpu, b);
      },
      "ddt_bias is f64 [4]");
}

}  // namespace
}  // namespace sluice::test
