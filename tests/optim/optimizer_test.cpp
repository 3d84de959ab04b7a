// tests/optim/optimizer_test.cpp -- AdamW over the shards of a store, and clipping with a sum over
// ranks.
#include "optim/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "model/autograd/plain_store.h"
#include "tests/support/cpu_context.h"
#include "tests/support/gradcheck.h"

namespace sluice {
namespace {

using test::CpuContext;
using test::element;

// Two matrices that decay, and a norm that does not.
std::unique_ptr<PlainStore> make_store(DType dtype = DType::f64) {
  auto store = std::make_unique<PlainStore>(dtype);
  const int group = store->add_group("block");
  for (const bool second : {false, true})
    store->add({.name = second ? "up.weight" : "down.weight",
                .shape = {5, 3},
                .init = {},
                .group = group,
                .weight_decay = true,
                .expert = false,
                .row_blocks = {}});
  store->add({.name = "norm.weight",
              .shape = {7},
              .init = {},
              .group = group,
              .weight_decay = false,
              .expert = false,
              .row_blocks = {}});
  store->allocate();
  for (const Shard& s : store->shards()) {
    test::fill_normal(s.master, uint64_t(10 + s.id.index));
    test::fill_normal(s.grad, uint64_t(20 + s.id.index));
  }
  return store;
}

OptimConfig config() {
  OptimConfig c;
  c.betas = {0.8, 0.9};
  c.eps = 1e-6;
  c.weight_decay = 0.25;
  c.clip_grad_norm = 2;
  return c;
}

double norm_of_gradients(const ParamStore& store) {
  double sum = 0;
  for (const Shard& s : store.shards()) sum += test::dot(s.grad, s.grad);
  return std::sqrt(sum);
}

// p - lr (wd p + g / (|g| + eps)): the first step in closed form, for every parameter.
TEST(Optimizer, FirstStepOfEveryParameter) {
  const CpuContext ctx;
  const auto store = make_store(), before = make_store();
  Optimizer optimizer(config(), *store);
  StepState state{.step = 1, .lr = 0.125f};
  optimizer.clip(ctx, &state);
  const double norm = norm_of_gradients(*store);
  EXPECT_FLOAT_EQ(state.grad_norm, float(norm));
  EXPECT_FLOAT_EQ(state.grad_scale, float(2 / norm));
  EXPECT_EQ(state.skip, 0);
  optimizer.step(ctx, &state);
  const auto moments = optimizer.moments();
  for (size_t i = 0; i < 3; ++i) {
    const Shard &s = store->shards()[i], &was = before->shards()[i];
    for (int64_t k = 0; k < s.master.dim(0); ++k) {
      const double p = element(was.master, k), g = element(was.grad, k) * state.grad_scale;
      const double decay = i < 2 ? 0.25 : 0;
      EXPECT_NEAR(element(s.master, k), p - 0.125 * (decay * p + g / (std::abs(g) + 1e-6)), 1e-14);
      EXPECT_NEAR(element(moments[i].m, k), 0.2 * g, 1e-15);
      EXPECT_NEAR(element(moments[i].v, k), 0.1 * g * g, 1e-15);
    }
  }
}

TEST(Optimizer, MomentsAreNamedAndStartAtZero) {
  for (const DType t : {DType::f32, DType::f64}) {
    const auto store = make_store(t);
    const Optimizer optimizer(config(), *store);
    const auto moments = optimizer.moments();
    ASSERT_EQ(moments.size(), 3u);
    EXPECT_EQ(moments[0].name, "down.weight");
    EXPECT_EQ(moments[2].name, "norm.weight");
    int64_t bytes = 0;
    for (size_t i = 0; i < 3; ++i)
      for (const Tensor& x : {moments[i].m, moments[i].v}) {
        EXPECT_EQ(x.dtype, t);
        EXPECT_EQ(x.numel(), store->shards()[i].master.numel());
        for (int64_t k = 0; k < x.numel(); ++k) EXPECT_EQ(element(x, k), 0);
        bytes += x.bytes();
      }
    EXPECT_EQ(optimizer.bytes(), bytes);
    EXPECT_EQ(bytes, 2 * (15 + 15 + 7) * size_of(t));
  }
}

// A run that stops, and goes on with the moments and values of a checkpoint, is the same run.
TEST(Optimizer, MomentsAreAllThereIsToSave) {
  const CpuContext ctx;
  const auto straight = make_store(), resumed = make_store();
  Optimizer a(config(), *straight);
  auto step = [&](Optimizer& optimizer, int64_t n) {
    StepState state{.step = n, .lr = 0.01f};
    optimizer.clip(ctx, &state);
    optimizer.step(ctx, &state);
  };
  for (int64_t n = 1; n <= 3; ++n) step(a, n);
  Optimizer b(config(), *resumed);
  for (size_t i = 0; i < 3; ++i) {
    copy(straight->shards()[i].master, resumed->shards()[i].master);
    copy(a.moments()[i].m, b.moments()[i].m);
    copy(a.moments()[i].v, b.moments()[i].v);
  }
  step(a, 4);
  step(b, 4);
  for (size_t i = 0; i < 3; ++i)
    for (int64_t k = 0; k < straight->shards()[i].master.dim(0); ++k)
      EXPECT_EQ(element(straight->shards()[i].master, k), element(resumed->shards()[i].master, k));
}

TEST(Optimizer, TheHookSumsOverRanks) {
  const CpuContext ctx;
  const auto store = make_store();
  Optimizer optimizer(config(), *store);
  StepState state{.step = 1, .lr = 1};
  int calls = 0;
  optimizer.clip(ctx, &state, [&](const Tensor& sum) {
    ++calls;
    *sum.as<double>() *= 4;  // as if four ranks had these gradients
  });
  EXPECT_EQ(calls, 1);
  const double norm = 2 * norm_of_gradients(*store);
  EXPECT_FLOAT_EQ(state.grad_norm, float(norm));
  EXPECT_FLOAT_EQ(state.grad_scale, float(2 / norm));
}

TEST(Optimizer, ANonFiniteGradientSkipsTheStep) {
  const CpuContext ctx;
  for (const double bad : {double(NAN), double(INFINITY)}) {
    const auto store = make_store(), before = make_store();
    Optimizer optimizer(config(), *store);
    test::set_element(store->shards()[1].grad, 4, bad);
    StepState state{.step = 1, .lr = 1};
    optimizer.clip(ctx, &state);
    EXPECT_EQ(state.skip, 1);
    optimizer.step(ctx, &state);
    for (size_t i = 0; i < 3; ++i)
      for (int64_t k = 0; k < before->shards()[i].master.dim(0); ++k)
        EXPECT_EQ(element(store->shards()[i].master, k), element(before->shards()[i].master, k));
    for (const auto& [name, m, v, id, begin] : optimizer.moments())
      for (int64_t k = 0; k < m.numel(); ++k) EXPECT_EQ(element(m, k) + element(v, k), 0) << name;
  }
}

TEST(Optimizer, FindsTheMinimumOfAParabola) {
  const CpuContext ctx;
  const auto store = make_store(DType::f32);
  OptimConfig c = config();
  c.weight_decay = 0;
  Optimizer optimizer(c, *store);
  for (int64_t n = 1; n <= 400; ++n) {
    for (const Shard& s : store->shards())  // gradient of sum (p - 1)^2 / 2
      for (int64_t k = 0; k < s.master.dim(0); ++k)
        test::set_element(s.grad, k, element(s.master, k) - 1);
    StepState state{.step = n, .lr = 0.05f * float(400 - n) / 400};
    optimizer.clip(ctx, &state);
    optimizer.step(ctx, &state);
  }
  // The last steps are about 1e-4 long: the distance left is at most of that order.
  for (const Shard& s : store->shards())
    for (int64_t k = 0; k < s.master.dim(0); ++k) EXPECT_NEAR(element(s.master, k), 1, 1e-3);
}

TEST(Optimizer, TableSaysWhoHasWhat) {
  const auto store = make_store();
  const std::string table = Optimizer(config(), *store).table();
  EXPECT_NE(table.find("[7]    1 tensors          7 elements  weight decay 0    lr x 1\n"),
            std::string::npos)
      << table;
  EXPECT_NE(table.find("adamw has 3 tensors, 37 elements\n"), std::string::npos) << table;
}

}  // namespace
}  // namespace sluice
