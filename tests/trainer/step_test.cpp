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
  StepLoss loss;
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
  params.start_step();
  Trained t{.loss = runner.train(micro, 0.01), .validation = 0, .gradients = {}};
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
