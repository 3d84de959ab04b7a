// tests/optim/expert_bias_test.cpp -- the rule in closed form, skipped steps, shards, and what a
// parameter without a gradient is left out of.
#include "optim/expert_bias.h"

#include <gtest/gtest.h>

#include "model/autograd/plain_store.h"
#include "optim/optimizer.h"
#include "tests/support/cpu_context.h"
#include "tests/support/gradcheck.h"

namespace sluice {
namespace {

using test::element;

// Two routers of four experts, and a matrix.
struct Routers {
  explicit Routers(DType dtype = DType::f64) : store(dtype) {
    const int group = store.add_group("block");
    for (const char* name : {"a.bias", "matrix", "b.bias"}) {
      const bool bias = name[0] != 'm';
      store.add({.name = name,
                 .shape = {4},
                 .init = {Init::Kind::constant, bias ? 0.0 : 1.0, 0},
                 .group = group,
                 .weight_decay = !bias,
                 .expert = false,
                 .row_blocks = {},
                 .rule = bias ? UpdateRule::expert_load : UpdateRule::gradient});
    }
    store.allocate();
    initialize(store, 1);
    stats = std::make_unique<StepStats>(store);
  }
  void count(int64_t layer, std::vector<int64_t> loads) {
    std::copy(loads.begin(), loads.end(), stats->expert_counts().row<int64_t>(layer));
  }
  std::vector<double> values(const char* name) const {
    std::vector<double> v;
    const Tensor& t = store.shards()[size_t(store.find(name).index)].master;
    for (int64_t i = 0; i < t.numel(); ++i) v.push_back(element(t, i));
    return v;
  }

  PlainStore store;
  std::unique_ptr<StepStats> stats;
};

TEST(ExpertBias, MovesAgainstTheLoad) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    Routers r(dtype);
    StepState state;
    r.count(0, {7, 1, 4, 4});  // mean 4
    r.count(1, {0, 0, 1, 0});  // mean 1/4
    update_expert_bias({}, r.store, *r.stats, 0.125, &state);
    EXPECT_EQ(r.values("a.bias"), (std::vector<double>{-0.125, 0.125, 0, 0}));
    EXPECT_EQ(r.values("b.bias"), (std::vector<double>{0.125, 0.125, -0.125, 0.125}));
    update_expert_bias({}, r.store, *r.stats, 0.125, &state);
    EXPECT_EQ(r.values("a.bias"), (std::vector<double>{-0.25, 0.25, 0, 0}));
    EXPECT_EQ(r.values("matrix"), (std::vector<double>{1, 1, 1, 1}));
  }
}

TEST(ExpertBias, ASkippedOrEmptyStepChangesNothing) {
  Routers r;
  StepState state{.skip = 1};
  r.count(0, {7, 1, 4, 4});
  update_expert_bias({}, r.store, *r.stats, 0.125, &state);
  EXPECT_EQ(r.values("a.bias"), (std::vector<double>{0, 0, 0, 0}));
  state.skip = 0;
  r.stats->start_step({});
  update_expert_bias({}, r.store, *r.stats, 0.125, &state);
  EXPECT_EQ(r.values("a.bias"), (std::vector<double>{0, 0, 0, 0}));
}

TEST(ExpertBias, HasNoGradientMomentsOrDecay) {
  Routers r;
  EXPECT_EQ(r.store.shards().size(), 3u);
  EXPECT_EQ(r.store.trained_shards().size(), 1u);
  r.store.acquire(0, Pass::backward);
  EXPECT_THROW(r.store.grad(r.store.find("a.bias")), Error);
  r.store.release(0, Pass::backward);
  r.store.start_step();
  r.store.finish_gradients();

  const test::CpuContext ctx;
  Optimizer optimizer({}, r.store);
  ASSERT_EQ(optimizer.moments().size(), 1u);
  EXPECT_EQ(optimizer.moments()[0].name, "matrix");
  const Shard& matrix = r.store.shards()[1];
  test::fill(matrix.grad, 3);
  StepState state{.step = 1, .lr = 1};
  optimizer.clip(ctx, &state);
  EXPECT_FLOAT_EQ(state.grad_norm, 6);  // of the matrix alone
  optimizer.step(ctx, &state);
  EXPECT_EQ(r.values("a.bias"), (std::vector<double>{0, 0, 0, 0}));
  EXPECT_NE(r.values("matrix")[0], 1);
}

TEST(StepStats, OneRowARouter) {
  Routers r;
  EXPECT_EQ(r.stats->expert_counts().dim(0), 2);
  EXPECT_EQ(r.stats->expert_biases()[1].index, r.store.find("b.bias").index);
  r.count(1, {1, 2, 3, 4});
  EXPECT_EQ(r.stats->expert_counts(r.store.find("b.bias")).as<int64_t>()[2], 3);
  EXPECT_THROW(r.stats->expert_counts(r.store.find("matrix")), Error);
  PlainStore dense(DType::f32);
  StepStats none(dense);
  none.start_step({});
  EXPECT_FALSE(none.expert_counts());
}

}  // namespace
}  // namespace sluice
