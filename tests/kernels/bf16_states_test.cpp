// tests/kernels/bf16_states_test.cpp -- AdamW and Muon with states in bf16: against the reference
// and against f32, at any cut, and where rounding to nearest would stand still.
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/adamw/adamw.h"
#include "kernels/muon/muon.h"
#include "tests/support/cpu_context.h"
#include "tests/support/gradcheck.h"
#include "tests/support/message.h"

namespace sluice {
namespace {

using test::CpuContext;
using test::element;

constexpr int64_t kMoreThanABlock = (1 << 14) + 37;

uint16_t* bits(const Tensor& t) {
  return static_cast<uint16_t*>(t.data);
}

struct AdamCase {
  AdamCase(int64_t n, DType states)
      : param(DType::f32, {n}), grad(DType::f32, {n}), m(states, {n}), v(states, {n}) {
    test::fill_normal(param.view(), 1);
    test::fill_normal(grad.view(), 2, 0.01);
  }
  AdamW rows(int64_t begin, int64_t n, const StepState& state) const {
    return {.param = param.view().rows(begin, n),
            .grad = grad.view().rows(begin, n),
            .m = m.view().rows(begin, n),
            .v = v.view().rows(begin, n),
            .state = &state,
            .weight_decay = 0.1,
            .rounding = {.key = 5, .begin = begin}};
  }
  AdamW all(const StepState& state) const { return rows(0, param.view().numel(), state); }
  Buffer param, grad, m, v;
};

// f32 and f64 differ by some 2^-24 of m, and two neighbours of bf16 lie 2^-8 of it apart: one in
// 10^4 may be rounded to the other side, and none any further.
void expect_nearly_equal_bits(const Tensor& got, const Tensor& want) {
  int64_t other = 0;
  for (int64_t i = 0; i < got.numel(); ++i) {
    const int apart = std::abs(int(bits(got)[i]) - int(bits(want)[i]));
    ASSERT_LE(apart, 1) << i;
    other += apart;
  }
  EXPECT_LE(double(other), 1 + 1e-3 * double(got.numel()));
}

TEST(Bf16States, AdamWIsTheReference) {
  const CpuContext fast, slow(Mode::reference);
  for (const int64_t n : {int64_t(1), int64_t(6), int64_t(1000), kMoreThanABlock}) {
    const AdamCase got(n, DType::bf16), want(n, DType::bf16);
    for (int64_t step = 1; step <= 3; ++step) {
      const StepState state{.step = step, .lr = 0.01F, .grad_scale = 0.5F};
      adamw(fast, got.all(state));
      adamw(slow, want.all(state));
      expect_nearly_equal_bits(got.m.view(), want.m.view());
      expect_nearly_equal_bits(got.v.view(), want.v.view());
      copy(want.m.view(), got.m.view());  // the next step starts from the same states
      copy(want.v.view(), got.v.view());
    }
    const test::ErrorStats e = test::compare(got.param.view(), want.param.view(), 8);
    EXPECT_LE(e.worst, 1) << e;
  }
}

// The step is made of what was not rounded yet: in the first one p moves as with f32 states.
TEST(Bf16States, TheParameterMovesByTheUnroundedStates) {
  const CpuContext ctx;
  const AdamCase narrow(1000, DType::bf16), wide(1000, DType::f32);
  const StepState state{.step = 1, .lr = 0.01F};
  adamw(ctx, narrow.all(state));
  adamw(ctx, wide.all(state));
  EXPECT_TRUE(test::same_bits(narrow.param.view(), wide.param.view()));
}

TEST(Bf16States, NeitherThreadsNorCutsChangeABit) {
  const CpuContext one(Mode::run, 1), three(Mode::run, 3);
  const int64_t n = kMoreThanABlock;
  const AdamCase whole(n, DType::bf16), threaded(n, DType::bf16);
  for (int64_t step = 1; step <= 3; ++step) {
    const StepState state{.step = step, .lr = 0.01F};
    adamw(one, whole.all(state));
    adamw(three, threaded.all(state));
  }
  EXPECT_TRUE(test::same_bits(whole.m.view(), threaded.m.view()));
  EXPECT_TRUE(test::same_bits(whole.param.view(), threaded.param.view()));
  for (const int64_t cut : {1, 2, 13, 1000}) {
    const AdamCase parts(n, DType::bf16);
    for (int64_t step = 1; step <= 3; ++step) {
      const StepState state{.step = step, .lr = 0.01F};
      adamw(one, parts.rows(0, cut, state));
      adamw(one, parts.rows(cut, n - cut, state));
    }
    EXPECT_TRUE(test::same_bits(whole.m.view(), parts.m.view())) << cut;
    EXPECT_TRUE(test::same_bits(whole.v.view(), parts.v.view())) << cut;
    EXPECT_TRUE(test::same_bits(whole.param.view(), parts.param.view())) << cut;
  }
}

TEST(Bf16States, ASkippedStepChangesNothing) {
  for (const Mode mode : {Mode::run, Mode::reference}) {
    const CpuContext ctx(mode);
    const AdamCase c(33, DType::bf16);
    adamw(ctx, c.all({.step = 1, .lr = 0.01F}));
    const Buffer m(c.m.view()), v(c.v.view());
    copy(c.m.view(), m.view()), copy(c.v.view(), v.view());
    adamw(ctx, c.all({.step = 2, .lr = 0.01F, .skip = 1}));
    EXPECT_TRUE(test::same_bits(c.m.view(), m.view()));
    EXPECT_TRUE(test::same_bits(c.v.view(), v.view()));
  }
}

// beta2 = 0.999 from v = 1 towards g^2 = 1/4: each change is below a fifth of a last place, so
// rounding to nearest would leave v at 1 for ever. The mean of 4096 elements follows the closed
// form; its standard error is that of a walk of some sqrt(2000) roundings of 2^-9, over 64.
TEST(Bf16States, SmallChangesAddUp) {
  const CpuContext ctx;
  const int64_t n = 4096;
  AdamCase c(n, DType::bf16);
  test::fill(c.grad.view(), 0.5);
  for (int64_t i = 0; i < n; ++i) bits(c.v.view())[i] = 0x3f80;  // 1
  for (int64_t step = 1; step <= 2000; ++step) {
    const StepState state{.step = step, .lr = 0};
    AdamW a = c.all(state);
    a.beta2 = 0.999;
    adamw(ctx, a);
  }
  double mean = 0;
  for (int64_t i = 0; i < n; ++i) mean += double(widen_bf16(bits(c.v.view())[i])) / double(n);
  const double want = 0.25 + 0.75 * std::pow(0.999, 2000);
  EXPECT_NEAR(mean, want, 5 * std::sqrt(2000.0) * 0x1p-9 / 64);
  EXPECT_LT(std::abs(want - 0.35), 0.01);
}

struct MuonCase {
  MuonCase(int64_t B, int64_t m, int64_t n, DType states)
      : param(DType::f32, {B, m, n}), grad(DType::f32, {B, m, n}), momentum(states, {B, m, n}) {
    test::fill_normal(param.view(), 1);
    test::fill_normal(grad.view(), 2, 0.01);
  }
  Muon rows(int64_t b, int64_t count, const StepState& state) const {
    const int64_t size = param.view().dim(1) * param.view().dim(2);
    return {.param = param.view().rows(b, count),
            .grad = grad.view().rows(b, count),
            .m = momentum.view().rows(b, count),
            .state = &state,
            .rounding = {.key = 6, .begin = b * size}};
  }
  Muon all(const StepState& state) const { return rows(0, param.view().dim(0), state); }
  Buffer param, grad, momentum;
};

TEST(Bf16States, MuonIsTheReferenceAndAnyBatch) {
  const CpuContext fast, slow(Mode::reference), one(Mode::run, 1);
  for (const auto& [B, m, n] : {std::array<int64_t, 3>{1, 1, 9}, {11, 20, 31}, {2, 130, 40}}) {
    const MuonCase got(B, m, n, DType::bf16), want(B, m, n, DType::bf16),
        parts(B, m, n, DType::bf16);
    for (int64_t step = 1; step <= 2; ++step) {
      const StepState state{.step = step, .lr = 0.01F, .grad_scale = 0.5F};
      muon(fast, got.all(state));
      muon(slow, want.all(state));
      for (int64_t b = 0; b < B; ++b) muon(one, parts.rows(b, 1, state));
      EXPECT_TRUE(test::same_bits(got.momentum.view(), parts.momentum.view())) << m << " x " << n;
      EXPECT_TRUE(test::same_bits(got.param.view(), parts.param.view())) << step;
      expect_nearly_equal_bits(got.momentum.view(), want.momentum.view());
      for (const MuonCase* c : {&got, &parts}) copy(want.momentum.view(), c->momentum.view());
    }
  }
}

TEST(Bf16States, MuonsDirectionIsMadeOfWhatIsNotRoundedYet) {
  const CpuContext ctx;
  const MuonCase narrow(2, 12, 20, DType::bf16), wide(2, 12, 20, DType::f32);
  const StepState state{.step = 1, .lr = 0.01F};
  for (const MuonCase* c : {&narrow, &wide}) {
    Muon a = c->all(state);
    a.momentum = 0.5;  // an exact product, whatever is fused with it
    muon(ctx, a);
  }
  EXPECT_TRUE(test::same_bits(narrow.param.view(), wide.param.view()));
}

TEST(Bf16States, ContractSaysWhatIsWrong) {
  const CpuContext ctx;
  const StepState state{.step = 1, .lr = 1};
  const AdamCase narrow(8, DType::bf16), wide(8, DType::f32);
  AdamW mixed = narrow.all(state);
  mixed.v = wide.v.view();
  test::expect_contains(test::error_of([&] { adamw(ctx, mixed); }), {"v is f32 [8]", "bf16 [8]"});
  const AdamW two[] = {narrow.all(state), wide.all(state)};
  test::expect_contains(test::error_of([&] { adamw(ctx, two); }), {"another", "type of m"});
  const Buffer f64(DType::f64, {8});
  AdamW exact = narrow.all(state);
  exact.param = exact.grad = f64.view();
  test::expect_contains(test::error_of([&] { adamw(ctx, exact); }), {"m is bf16 [8]", "f64 [8]"});
}

}  // namespace
}  // namespace sluice
