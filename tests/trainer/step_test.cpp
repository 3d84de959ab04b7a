// tests/trainer/step_test.cpp -- one micro-batch: the z-loss beside the cross entropy.
#include "trainer/loop/step.h"

#include <gtest/gtest.h>

#include "configs/schema.h"
#include "tests/support/cpu_context.h"
#include "tests/support/tiny_model.h"
#include "trainer/loop/config.h"

namespace sluice {
namespace {

struct Trained {
  StepState loss;
  double validation = 0;
  std::vector<double> gradients;
};

Trained train(double z_loss) {
  const test::Documents docs({5, 40, 0, 20});
  const LmBatch batch = docs.batch();
  const MicroBatch micro{.tokens = batch.tokens,
                         .targets = batch.targets,
                         .cu_seqlens = batch.sequences.cu_seqlens,
                         .valid_tokens = batch.tokens.dim(0)};
  PlainStore params(DType::f32);
  const Lm lm(test::tiny_config(), params);
  params.allocate();
  initialize(params, 1);
  StepRunner runner({}, params, lm, Recompute::none, z_loss);
  Arena arena(Device::cpu, runner.plan(micro));
  runner.use(arena);
  Trained t{.loss = {}, .validation = 0, .gradients = {}};
  runner.begin_step(&t.loss, 0);
  runner.train(micro, 0.01);
  params.finish_gradients();
  for (const Shard& s : params.shards())
    for (int64_t i = 0; i < s.grad.numel(); ++i) t.gradients.push_back(test::element(s.grad, i));
  t.validation = runner.validate(micro);
  return t;
}

// Losses of runs with different coefficients compare: the cross entropy is the same to the bit, in
// training and in validation, while the gradients are not.
TEST(Step, ZLossIsReportedApart) {
  const Trained without = train(0), with = train(0.5), twice = train(1);
  EXPECT_EQ(without.loss.z_loss, 0);
  EXPECT_GT(with.loss.z_loss, 0);
  EXPECT_EQ(twice.loss.z_loss, 2 * with.loss.z_loss);
  for (const Trained* t : {&with, &twice}) {
    EXPECT_EQ(t->loss.cross_entropy, without.loss.cross_entropy);
    EXPECT_EQ(t->validation, without.validation);
    EXPECT_FALSE(t->gradients == without.gradients);
  }
}

struct Scored {
  double nats = 0;
  std::vector<double> nll;
  std::vector<int32_t> predicted;
};

// Scores of documents, in memory planned for scoring alone.
Scored score(const test::Documents& docs, ParamStore& params, const Lm& lm, int threads) {
  const LmBatch batch = docs.batch();
  const MicroBatch micro{.tokens = batch.tokens,
                         .targets = batch.targets,
                         .cu_seqlens = batch.sequences.cu_seqlens,
                         .valid_tokens = batch.tokens.dim(0)};
  ThreadPool pool(threads);
  StepRunner runner({.threads = &pool}, params, lm, Recompute::none, 0.5);
  Arena arena(Device::cpu, runner.plan_score(micro));
  arena.set_poison(Arena::Poison::on);
  runner.use(arena);
  const Scores s = runner.score(micro);
  EXPECT_EQ(arena.peak(), runner.plan_score(micro)) << "planned is used";
  return {.nats = s.nats,
          .nll = {s.nll.begin(), s.nll.end()},
          .predicted = {s.predicted.begin(), s.predicted.end()}};
}

// Token by token what training's loss sums up, whatever else is in the micro-batch and on how many
// threads; a z-loss does not show.
TEST(Step, ScoresAreTheLossTokenByToken) {
  const test::Documents docs({5, 40, 0, 20});
  docs.targets.view().as<int32_t>()[7] = kNoTarget;
  for (const DType t : {DType::f32, DType::f64}) {
    PlainStore params(t);
    const Lm lm(test::tiny_config(), params);
    params.allocate();
    initialize(params, 1);
    const Scored all = score(docs, params, lm, 1), again = score(docs, params, lm, 2);
    EXPECT_EQ(all.nats, again.nats);
    EXPECT_EQ(all.nll, again.nll);
    EXPECT_EQ(all.predicted, again.predicted);
    ASSERT_EQ(all.nll.size(), 65U);
    EXPECT_EQ(all.nll[7], 0);
    double sum = 0;
    for (const double x : all.nll) sum += x;
    EXPECT_DOUBLE_EQ(all.nats, sum);
    for (const int64_t d : {0, 1, 3}) {
      const Scored one = score(docs.only(d), params, lm, 1);
      const int64_t begin = docs.cu.view().as<int32_t>()[d];
      for (size_t i = 0; i < one.nll.size(); ++i) {
        // As many ulps as a product's sums may differ with its number of rows.
        EXPECT_NEAR(one.nll[i], all.nll[size_t(begin) + i], t == DType::f32 ? 2e-5 : 1e-13);
        EXPECT_EQ(one.predicted[i], all.predicted[size_t(begin) + i]) << d << " " << i;
      }
    }
  }
}

// Predictions as targets: the loss is then the least that this model can have on any targets, and
// with another target for one token it is more.
TEST(Step, WhatIsPredictedIsLikeliest) {
  test::Documents docs({30, 12});
  PlainStore params(DType::f64);
  const Lm lm(test::tiny_config(), params);
  params.allocate();
  initialize(params, 1);
  const Scored first = score(docs, params, lm, 1);
  std::copy(first.predicted.begin(), first.predicted.end(), docs.targets.view().as<int32_t>());
  const Scored best = score(docs, params, lm, 1);
  EXPECT_EQ(best.predicted, first.predicted);
  for (int32_t other = 0; other < 29; ++other) {
    std::fill_n(docs.targets.view().as<int32_t>(), 42, other);
    const Scored s = score(docs, params, lm, 1);
    for (size_t n = 0; n < 42; ++n) {
      if (s.predicted[n] == other)
        EXPECT_EQ(s.nll[n], best.nll[n]);
      else
        EXPECT_GT(s.nll[n], best.nll[n]);
    }
  }
}

TEST(Step, ZLossBelowZeroIsAConfigError) {
  try {
    config::load_string<Config>("train: {z_loss: -1}", "c.yaml");
    ADD_FAILURE() << "no error";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find(
                  "c.yaml:1:17: train.z_loss: expected a number of at least 0, got \"-1\""),
              std::string::npos)
        << e.what();
  }
}

}  // namespace
}  // namespace sluice
