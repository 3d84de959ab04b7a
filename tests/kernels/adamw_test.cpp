// tests/kernels/adamw_test.cpp -- closed forms of the first steps, both back ends, skipping, edges.
#include "kernels/adamw/adamw.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "tests/support/cpu_context.h"
#include "tests/support/gradcheck.h"

namespace sluice {
namespace {

using test::CpuContext;
using test::element;
using test::set_element;

constexpr int64_t kMoreThanABlock = (1 << 14) + 37;

// Values are rounded to f32 in every dtype: the f32 and the f64 case start from the same numbers.
struct Case {
  Case(DType t, int64_t n) : param(t, {n}), grad(t, {n}), m(t, {n}), v(t, {n}) {
    for (int64_t i = 0; i < n; ++i) {
      set_element(param.view(), i, double(float(random_normal(1, uint64_t(i)))));
      set_element(grad.view(), i, double(float(0.01 * random_normal(2, uint64_t(i)))));
    }
  }
  void step(const Context& ctx, const StepState& state) {
    AdamW a = args;
    a.param = param.view(), a.grad = grad.view(), a.m = m.view(), a.v = v.view();
    a.state = &state;
    adamw(ctx, a);
  }
  Buffer param, grad, m, v;
  AdamW args{.param = {},
             .grad = {},
             .m = {},
             .v = {},
             .state = nullptr,
             .lr_scale = 0.5,
             .beta1 = 0.9,
             .beta2 = 0.95,
             .eps = 1e-8,
             .weight_decay = 0.1};
};

class AdamWOp : public testing::TestWithParam<Mode> {};
INSTANTIATE_TEST_SUITE_P(BackEnds, AdamWOp, testing::Values(Mode::run, Mode::reference),
                         [](const auto& info) {
                           return info.param == Mode::run ? "cpu" : "reference";
                         });

// In the first step the bias correction undoes the averaging: m_hat = g and v_hat = g^2.
TEST_P(AdamWOp, FirstStepIsTheSignOfTheGradient) {
  CpuContext ctx(GetParam());
  Case c(DType::f64, 101), before(DType::f64, 101);
  const StepState state{.step = 1, .lr = 0.25f, .grad_scale = 0.5f};  // exact in f32
  c.step(ctx, state);
  for (int64_t i = 0; i < 101; ++i) {
    const double p = element(before.param.view(), i), g = 0.5 * element(before.grad.view(), i);
    const double want = p - 0.125 * (0.1 * p + g / (std::abs(g) + 1e-8));
    EXPECT_NEAR(element(c.param.view(), i), want, 1e-14) << i;
    EXPECT_NEAR(element(c.m.view(), i), 0.1 * g, 1e-16);
    EXPECT_NEAR(element(c.v.view(), i), 0.05 * g * g, 1e-16 * g * g * 8);
    EXPECT_EQ(element(c.grad.view(), i), element(before.grad.view(), i));
  }
}

// With a constant gradient m_hat = g and v_hat = g^2 in every step, so p moves by lr each time.
TEST_P(AdamWOp, ConstantGradientMovesByTheLearningRate) {
  CpuContext ctx(GetParam());
  for (const DType t : {DType::f32, DType::f64}) {
    Case c(t, 3);
    c.args.weight_decay = 0;
    c.args.lr_scale = 1;
    test::fill(c.param.view(), 0);
    test::fill(c.grad.view(), 2);
    for (int64_t step = 1; step <= 50; ++step) {
      c.step(ctx, {.step = step, .lr = 0.125f});
      // f32: 50 steps, each of which rounds m, v and their corrections a few times.
      EXPECT_NEAR(element(c.param.view(), 1), -0.125 * double(step) / (1 + 0.5e-8),
                  (t == DType::f32 ? 4e-7 : 1e-15) * double(step))
          << step;
    }
  }
}

TEST_P(AdamWOp, DecayIsDecoupled) {
  CpuContext ctx(GetParam());
  Case c(DType::f64, 2);
  test::fill(c.param.view(), 3);
  test::fill(c.grad.view(), 0);
  c.step(ctx, {.step = 1, .lr = 0.5f});
  EXPECT_NEAR(element(c.param.view(), 0), 3 * (1 - 0.25 * 0.1), 1e-15);  // no gradient: decay alone
  EXPECT_EQ(element(c.m.view(), 0), 0);  // and it leaves no trace in the moments
  EXPECT_EQ(element(c.v.view(), 0), 0);
}

// Equal to adding grad * grad_scale: the clip factor acts on both moments.
TEST_P(AdamWOp, GradScaleScalesTheGradient) {
  CpuContext ctx(GetParam());
  Case a(DType::f64, 40), b(DType::f64, 40);
  for (int64_t i = 0; i < 40; ++i) set_element(b.grad.view(), i, 0.25 * element(a.grad.view(), i));
  a.step(ctx, {.step = 7, .lr = 1e-2f, .grad_scale = 0.25f});
  b.step(ctx, {.step = 7, .lr = 1e-2f});
  for (const auto& [x, y] : {std::pair{&a.param, &b.param}, {&a.m, &b.m}, {&a.v, &b.v}})
    for (int64_t i = 0; i < 40; ++i) EXPECT_EQ(element(x->view(), i), element(y->view(), i));
}

TEST_P(AdamWOp, ASkippedStepChangesNothing) {
  CpuContext ctx(GetParam());
  for (const DType t : {DType::f32, DType::f64}) {
    Case c(t, 33), before(t, 33);
    test::fill(c.m.view(), 0.5), test::fill(before.m.view(), 0.5);
    test::fill(c.grad.view(), NAN);
    c.step(ctx, {.step = 3, .lr = 1, .grad_scale = NAN, .skip = 1});
    for (const auto& [x, y] :
         {std::pair{&c.param, &before.param}, {&c.m, &before.m}, {&c.v, &before.v}})
      EXPECT_EQ(0, std::memcmp(x->view().data, y->view().data, size_t(x->view().bytes())));
  }
}

TEST_P(AdamWOp, NoElements) {
  CpuContext ctx(GetParam());
  Case c(DType::f32, 0);
  EXPECT_NO_THROW(c.step(ctx, {.step = 1, .lr = 1}));
}

// A gradient of exactly 0 from the first step on (an unused embedding row) must not become 0 / 0.
TEST_P(AdamWOp, ZeroGradientsAreHarmless) {
  CpuContext ctx(GetParam());
  Case c(DType::f32, 5), before(DType::f32, 5);
  c.args.weight_decay = 0;
  test::fill(c.grad.view(), 0);
  for (int64_t step = 1; step <= 3; ++step) c.step(ctx, {.step = step, .lr = 1});
  for (int64_t i = 0; i < 5; ++i)
    EXPECT_EQ(element(c.param.view(), i), element(before.param.view(), i));
}

TEST(AdamWCpu, MatchesTheReference) {
  CpuContext cpu, reference(Mode::reference);
  for (const int64_t n : {1, 17, 1000}) {
    Case f32(DType::f32, n), f64(DType::f64, n), want(DType::f64, n);
    for (int64_t step = 1; step <= 20; ++step) {
      const StepState state{.step = step, .lr = 1e-2f, .grad_scale = 0.7f};
      for (int64_t i = 0; i < n; ++i) {
        const double g = double(float(random_normal(uint64_t(100 + step), uint64_t(i))));
        for (Case* c : {&f32, &f64, &want}) set_element(c->grad.view(), i, g);
      }
      f32.step(cpu, state), f64.step(cpu, state), want.step(reference, state);
    }
    for (Case* c : {&f32, &f64}) {
      // Per step about five roundings of a moment and two of the parameter, 20 steps of them; the
      // update is 1e-2 of the parameter, so its own error hardly counts.
      for (const auto& [got, w] :
           {std::pair{&c->param, &want.param}, {&c->m, &want.m}, {&c->v, &want.v}}) {
        const auto e = test::compare(got->view(), w->view(), 20);
        EXPECT_LE(e.worst, 1) << e;
      }
    }
  }
}

TEST(AdamWCpu, ThreadsChangeNoBit) {
  for (const DType t : {DType::f32, DType::f64}) {
    CpuContext one(Mode::run, 1), three(Mode::run, 3);
    Case a(t, kMoreThanABlock), b(t, kMoreThanABlock);
    for (int64_t step = 1; step <= 3; ++step) {
      a.step(one, {.step = step, .lr = 1e-2f});
      b.step(three, {.step = step, .lr = 1e-2f});
    }
    for (const auto& [x, y] : {std::pair{&a.param, &b.param}, {&a.m, &b.m}, {&a.v, &b.v}})
      EXPECT_EQ(0, std::memcmp(x->view().data, y->view().data, size_t(x->view().bytes())));
  }
}

// Where a shard begins must not matter: ranks cut the same parameter at different places.
TEST(AdamWCpu, AShardIsUpdatedAsTheWhole) {
  CpuContext ctx;
  for (const int64_t cut : {1, 13, 1000}) {
    Case whole(DType::f32, kMoreThanABlock), parts(DType::f32, kMoreThanABlock);
    const StepState state{.step = 2, .lr = 1e-2f, .grad_scale = 0.3f};
    whole.step(ctx, state);
    for (const auto& [begin, n] : {std::pair{int64_t(0), cut}, {cut, kMoreThanABlock - cut}}) {
      AdamW a = parts.args;
      a.param = parts.param.view().rows(begin, n), a.grad = parts.grad.view().rows(begin, n);
      a.m = parts.m.view().rows(begin, n), a.v = parts.v.view().rows(begin, n);
      a.state = &state;
      adamw(ctx, a);
    }
    EXPECT_EQ(0, std::memcmp(whole.param.view().data, parts.param.view().data,
                             size_t(whole.param.view().bytes())))
        << cut;
  }
}

TEST(AdamWCpu, PlanReadsNothing) {
  Arena arena = Arena::plan(Device::cpu);
  const Context plan{.mode = Mode::plan, .arena = &arena};
  const Tensor t = make_tensor(nullptr, DType::f32, Device::cpu, {100});
  adamw(plan, {.param = t, .grad = t, .m = t, .v = t, .state = nullptr});
  EXPECT_EQ(arena.peak(), 0);
}

std::string message_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

TEST(AdamWContract, SaysWhatIsWrong) {
  CpuContext ctx;
  auto expect = [](const std::string& message, const std::vector<std::string>& parts) {
    for (const std::string& part : parts)
      EXPECT_NE(message.find(part), std::string::npos) << "no '" << part << "' in: " << message;
  };
  const StepState state{.step = 1, .lr = 1};
  Case c(DType::f32, 8);
  auto with = [&](const std::function<void(AdamW&)>& change) {
    AdamW a = c.args;
    a.param = c.param.view(), a.grad = c.grad.view(), a.m = c.m.view(), a.v = c.v.view();
    a.state = &state;
    change(a);
    return message_of([&] { adamw(ctx, a); });
  };
  const Buffer f64(DType::f64, {8});
  expect(with([&](AdamW& a) { a.grad = f64.view(); }), {"grad is f64 [8]", "f32 [8]"});
  expect(with([&](AdamW& a) { a.v = a.v.rows(0, 7); }), {"v is f32 [7]", "[8]"});
  expect(with([&](AdamW& a) { a.beta2 = 1; }), {"0.9 and 1"});
  expect(with([&](AdamW& a) { a.eps = 0; }), {"eps is 0"});
  expect(with([&](AdamW& a) { a.eps = 1e-60; }), {"eps is 1e-60", "f32"});
  expect(with([&](AdamW& a) { a.state = nullptr; }), {"no step state"});
  const StepState none{.step = 0, .lr = 1};
  expect(with([&](AdamW& a) { a.state = &none; }), {"step is 0"});
}

}  // namespace
}  // namespace sluice
