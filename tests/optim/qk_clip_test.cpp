// tests/optim/qk_clip_test.cpp -- which rows are scaled, by what; after a clip the logits of the
// same batch are at the threshold; heads below it keep their bits.
#include "optim/qk_clip.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/support/cpu_context.h"
#include "tests/support/message.h"
#include "tests/support/tiny_model.h"

namespace sluice {
namespace {

using test::CpuContext;
using test::element;

std::vector<double> values(const Tensor& t) {
  std::vector<double> v;
  for (int64_t i = 0; i < t.numel(); ++i) v.push_back(element(t, i));
  return v;
}

// Two heads: q of 2 + 1 rows each, keys and values of 2 + 2, two columns; and what has no heads.
struct Projections {
  Projections() : store(DType::f64) {
    const int group = store.add_group("layer");
    store.add({.name = "q", .shape = {6, 2}, .group = group, .heads = {2, 2, 1}});
    store.add({.name = "kv", .shape = {8, 2}, .group = group, .heads = {2, 2, 0}});
    store.add({.name = "o", .shape = {2, 2}, .group = group});
    store.allocate();
    for (const Shard& s : store.shards()) test::fill(s.master, 1);
    stats = std::make_unique<StepStats>(store);
    stats->start_step(ctx);
  }
  std::vector<double> of(int i) const { return values(store.shards()[size_t(i)].master); }

  CpuContext ctx;
  PlainStore store;
  std::unique_ptr<StepStats> stats;
  StepState state;
};

TEST(QkClip, RowsByHand) {
  Projections p;
  p.stats->max_logits().as<float>()[0] = 3;
  p.stats->max_logits().as<float>()[1] = 64;
  qk_clip(p.ctx, p.store, *p.stats, 16, &p.state);
  EXPECT_EQ(heads_over(p.stats->max_logits(), 16), 1);
  EXPECT_EQ(p.of(0), (std::vector<double>{1, 1, 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25}));
  EXPECT_EQ(p.of(1), (std::vector<double>{1, 1, 1, 1, 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 1, 1, 1, 1}));
  EXPECT_EQ(p.of(2), (std::vector<double>{1, 1, 1, 1}));
}

TEST(QkClip, NothingToDo) {
  Projections p;
  const auto ones = [&] {
    for (int i = 0; i < 3; ++i)
      if (p.of(i) != std::vector<double>(p.of(i).size(), 1)) return false;
    return true;
  };
  EXPECT_EQ(p.stats->max_logits().as<float>()[0], -INFINITY);  // a step without tokens
  qk_clip(p.ctx, p.store, *p.stats, 1, &p.state);
  EXPECT_EQ(heads_over(p.stats->max_logits(), 1), 0);
  EXPECT_TRUE(ones());
  test::fill(p.stats->max_logits(), 16);
  qk_clip(p.ctx, p.store, *p.stats, 16, &p.state);
  EXPECT_EQ(heads_over(p.stats->max_logits(), 16), 0);  // at the threshold, not over it
  EXPECT_TRUE(ones());
  p.state.skip = 1;
  qk_clip(p.ctx, p.store, *p.stats, 1, &p.state);
  EXPECT_TRUE(ones());
  PlainStore dense(DType::f32);
  dense.add({.name = "o", .shape = {2, 2}, .group = dense.add_group("layer")});
  dense.allocate();
  const StepState state;
  const StepStats none(dense);
  EXPECT_FALSE(none.max_logits());
  qk_clip(p.ctx, dense, none, 1, &state);
  EXPECT_EQ(heads_over(none.max_logits(), 1), 0);
}

TEST(StepStats, LogitsOfALayerAreItsProjections) {
  PlainStore store(DType::f32);
  for (const char* layer : {"a", "b", "c"}) {
    const int group = store.add_group(layer);
    if (*layer == 'b') continue;
    store.add({.name = cat(layer, ".q"), .shape = {4, 2}, .group = group, .heads = {2, 2, 0}});
    store.add({.name = cat(layer, ".norm"), .shape = {2}, .group = group});
    store.add({.name = cat(layer, ".kv"), .shape = {8, 2}, .group = group, .heads = {2, 2, 0}});
  }
  store.allocate();
  const StepStats stats(store);
  EXPECT_EQ(to_string(stats.max_logits()), "f32 [2, 2] on cpu");
  for (const char* layer : {"a", "c"})
    EXPECT_EQ(stats.max_logits(store.find(cat(layer, ".q"))).data,
              stats.max_logits(store.find(cat(layer, ".kv"))).data);
  EXPECT_NE(stats.max_logits(store.find("a.q")).data, stats.max_logits(store.find("c.q")).data);
  PlainStore uneven(DType::f32);
  for (const int64_t heads : {2, 4})
    uneven.add({.name = cat("q", heads),
                .shape = {4, 2},
                .group = uneven.add_group(cat(heads)),
                .heads = {heads, 1, 0}});
  test::expect_contains(test::error_of([&] { StepStats{uneven}; }), {"q4 has 4 heads", "2"});
}

// One attention layer, so that a clip changes its logits and not what it is given. Tested on the
// model with the real rows, where a mistake of which rows are what would show.
LmConfig one_layer(bool rope, std::optional<int64_t> q_lora_rank) {
  LmConfig c = test::tiny_config();
  c.num_hidden_layers = 1;
  c.ratio = "0:1";
  c.mla.num_attention_heads = 5;
  c.mla.use_nope = !rope;
  c.mla.q_lora_rank = q_lora_rank;
  c.mla.rope_theta = 10;
  return c;
}

struct Model {
  explicit Model(const LmConfig& c, DType t) : params(t), lm(c, params) {
    params.allocate();
    initialize(params, 5);
    stats = std::make_unique<StepStats>(params);
  }
  // The largest logits of a step of two micro-batches.
  std::vector<double> logits(Recompute recompute = Recompute::none) {
    stats->start_step(ctx);
    params.start_step();
    for (const uint64_t seed : {1, 2}) {
      const test::Documents docs({40, 0, 3, 80}, seed);
      Tape tape(ctx, params, Tape::Mode::train);
      tape.count_into(stats.get());
      tape.backward(lm.loss(tape, docs.batch(), recompute));
    }
    return values(stats->max_logits());
  }
  CpuContext ctx;
  PlainStore params;
  Lm lm;
  std::unique_ptr<StepStats> stats;
};

TEST(QkClip, AfterItTheLogitsAreAtTheThreshold) {
  for (const bool rope : {false, true})
    for (const auto rank : {std::optional<int64_t>(), std::optional<int64_t>(10)})
      for (const DType t : {DType::f32, DType::f64}) {
        Model model(one_layer(rope, rank), t);
        const std::vector<double> before = model.logits();
        EXPECT_EQ(before, model.logits(Recompute::block));
        std::vector<double> sorted = before;
        std::sort(sorted.begin(), sorted.end());
        ASSERT_GT(sorted[0], 0);
        const double threshold = (sorted[1] + sorted[2]) / 2;
        const StepState state;
        EXPECT_EQ(heads_over(model.stats->max_logits(), threshold), 3);
        qk_clip(model.ctx, model.params, *model.stats, threshold, &state);
        const std::vector<double> after = model.logits();
        // The largest of all that are smaller by gamma; f32 rounds a score of eight terms.
        for (size_t h = 0; h < before.size(); ++h)
          if (before[h] > threshold)
            EXPECT_NEAR(after[h], threshold, 1e-6 * threshold) << h;
          else
            EXPECT_EQ(after[h], before[h]) << h;
      }
}

// Micro-batches make one maximum: it is that of the larger one, head by head.
TEST(QkClip, MicroBatchesMakeOneMaximum) {
  Model model(one_layer(false, {}), DType::f64);
  const std::vector<double> both = model.logits();
  std::vector<double> largest(both.size(), -INFINITY);
  for (const uint64_t seed : {1, 2}) {
    const test::Documents docs({40, 0, 3, 80}, seed);
    model.stats->start_step(model.ctx);
    Tape tape(model.ctx, model.params, Tape::Mode::train);
    tape.count_into(model.stats.get());
    tape.backward(model.lm.loss(tape, docs.batch(), Recompute::none));
    for (size_t h = 0; h < both.size(); ++h)
      largest[h] = std::max(largest[h], values(model.stats->max_logits())[h]);
  }
  EXPECT_EQ(both, largest);
}

}  // namespace
}  // namespace sluice
