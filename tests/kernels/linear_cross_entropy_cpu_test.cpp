// tests/kernels/linear_cross_entropy_cpu_test.cpp -- the fast path against the reference, threads,
// the plan, and the contract's messages.
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "tests/kernels/linear_cross_entropy_case.h"
#include "tests/support/cpu_context.h"

namespace sluice {
namespace {

using test::Case;
using test::CpuContext;
using test::element;
using test::Targets;

struct Size {
  int64_t N, D, V;
};

constexpr double kF32InF64Ulps = 536870912;  // 2^29: the loss is f64, but a sum of rows in T

// Same inputs in both; the reference runs in f64.
TEST(LinearCrossEntropyCpu, MatchesTheReference) {
  CpuContext cpu, reference(Mode::reference);
  for (const Size& size :
       {Size{3, 2, 5}, Size{65, 33, 257}, Size{513, 48, 300}, Size{64, 192, 512}}) {
    for (const double std : {0.3, 4.0}) {
      Case want(DType::f64, size.N, size.D, size.V, Targets::some_ignored, std);
      auto check = [&](const Tensor& got, const Tensor& w, double ulps, const char* what) {
        const auto e = test::compare(got, w, ulps);
        EXPECT_LE(e.worst, 1) << what << " " << size.N << " " << size.D << " " << size.V << ": "
                              << e;
      };
      Case f64(DType::f64, size.N, size.D, size.V, Targets::some_ignored, std);
      Case f32(DType::f32, size.N, size.D, size.V, Targets::some_ignored, std);
      for (Case* c : {&want, &f64, &f32}) c->z_loss = std < 1 ? 0 : 0.01;
      want.forward(reference);
      want.backward(reference);
      f64.forward(cpu);
      f64.backward(cpu);
      f32.forward(cpu);
      f32.backward(cpu);
      for (Case* c : {&f64, &f32}) {
        // Each logit is a dot product of D <= 192 terms of size std: its error is below
        // sqrt(D) eps std, which exp() turns into a relative one of dlogits; a gradient sums up to
        // N or V such terms, whose errors average out.
        const double ulps = 8 * std::max(1.0, std);
        check(c->loss.view(), want.loss.view(), 16 * (c == &f32 ? kF32InF64Ulps : 1), "loss");
        check(c->terms.view(), want.terms.view(), 16 * (c == &f32 ? kF32InF64Ulps : 1), "terms");
        check(c->lse.view(), want.lse.view(), ulps, "lse");
        check(c->nll.view(), want.nll.view(), ulps, "nll");
        check(c->dh, want.dh, 4 * ulps, "dh");
        check(c->dw.view(), want.dw.view(), 4 * ulps, "dw");
      }
    }
  }
}

TEST(LinearCrossEntropyCpu, ThreadsChangeNoBit) {
  for (const DType t : {DType::f32, DType::f64}) {
    CpuContext one(Mode::run, 1), two(Mode::run, 2), five(Mode::run, 5);
    Case a(t, 700, 24, 600), b(t, 700, 24, 600), c(t, 700, 24, 600);
    a.forward(one), a.backward(one);
    b.forward(two), b.backward(two);
    c.forward(five), c.backward(five);
    for (Case* x : {&b, &c}) {
      EXPECT_EQ(0, std::memcmp(a.loss.view().data, x->loss.view().data, 8));
      auto expect_same = [](const Tensor& p, const Tensor& q) {
        for (int64_t i = 0; i < p.numel(); ++i) ASSERT_EQ(element(p, i), element(q, i)) << i;
      };
      expect_same(a.lse.view(), x->lse.view());
      expect_same(a.nll.view(), x->nll.view());
      for (int64_t n = 0; n < 700; ++n)
        ASSERT_EQ(a.predicted.view().as<int32_t>()[n], x->predicted.view().as<int32_t>()[n]) << n;
      expect_same(a.dh, x->dh);
      expect_same(a.dw.view(), x->dw.view());
    }
  }
}

TEST(LinearCrossEntropyCpu, PlanKnowsThePeak) {
  for (const Mode mode : {Mode::run, Mode::reference})
    for (const int64_t N : {0, 5, 512, 700}) {
      Case c(DType::f32, N, 24, 600);
      CpuContext run(mode);
      Arena plan_arena = Arena::plan(Device::cpu);
      Context plan{.mode = Mode::plan, .arena = &plan_arena};
      Case planned(DType::f32, N, 24, 600);
      // Tensors of a plan have no memory.
      for (Tensor* t : {&planned.h, &planned.dh}) t->data = nullptr;
      c.forward(run), planned.forward(plan);
      EXPECT_EQ(plan_arena.peak(), run.arena.peak());
      c.backward(run), planned.backward(plan);
      EXPECT_EQ(plan_arena.peak(), run.arena.peak());
      EXPECT_EQ(run.arena.used(), 0);
    }
}

std::string message_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

TEST(LinearCrossEntropyContract, SaysWhatIsWrong) {
  CpuContext ctx;
  auto expect = [](const std::string& message, const std::vector<std::string>& parts) {
    for (const std::string& part : parts)
      EXPECT_NE(message.find(part), std::string::npos) << "no '" << part << "' in: " << message;
  };
  for (const int32_t bad : {17, -2, 1 << 30}) {
    Case c(DType::f32, 20, 6, 17);
    c.targets.view().as<int32_t>()[11] = bad;
    for (const std::string& m :
         {message_of([&] { c.forward(ctx); }), message_of([&] { c.backward(ctx); })})
      expect(m, {cat("target ", bad, " at row 11"), "0 to 16", "or -1"});
  }
  Case c(DType::f32, 20, 6, 17), other(DType::f64, 20, 6, 17);
  const auto w = [&](Case& x) { return x.w.view(); };
  LinearCrossEntropyForward f{.h = c.h,
                              .w = w(other),
                              .targets = c.targets.view(),
                              .loss_scale = c.loss_scale.view(),
                              .loss = c.loss.view(),
                              .terms = {},
                              .lse = c.lse.view(),
                              .nll = {}};
  expect(message_of([&] { linear_cross_entropy_forward(ctx, f); }), {"w is f64 [17, 6]", "f32"});
  f.w = w(c).columns(0, 5);
  expect(message_of([&] { linear_cross_entropy_forward(ctx, f); }),
         {"w is f32 [17, 5]", "[17, 6]"});
  const Buffer wide(DType::f32, {17, 9});
  f.w = wide.view().columns(0, 6);
  expect(message_of([&] { linear_cross_entropy_forward(ctx, f); }),
         {"w is f32 [17, 6]", "9 apart"});
  f.w = wide.view().columns(0, 6).rows(0, 0);
  expect(message_of([&] { linear_cross_entropy_forward(ctx, f); }), {"no vocabulary"});
  f.w = w(c);
  f.lse = c.lse.view().rows(0, 19);
  expect(message_of([&] { linear_cross_entropy_forward(ctx, f); }), {"lse is f32 [19]", "[20]"});
  f.lse = c.lse.view();
  f.loss = c.nll.view().rows(0, 1);
  expect(message_of([&] { linear_cross_entropy_forward(ctx, f); }), {"loss is f32 [1]", "f64 [1]"});
  f.loss = c.loss.view();
  f.terms = f.loss;
  expect(message_of([&] { linear_cross_entropy_forward(ctx, f); }), {"terms is f64 [1]", "[2]"});
  f.terms = {};
  f.predicted = c.nll.view();
  expect(message_of([&] { linear_cross_entropy_forward(ctx, f); }),
         {"predicted is f32 [20]", "i32 [20]"});
  f.predicted = {};
  f.z_loss = -1;
  expect(message_of([&] { linear_cross_entropy_forward(ctx, f); }), {"z_loss is -1"});
  f.z_loss = 0;
  f.targets = c.nll.view();
  expect(message_of([&] { linear_cross_entropy_forward(ctx, f); }), {"targets is f32", "i32 [20]"});
}

}  // namespace
}  // namespace sluice
