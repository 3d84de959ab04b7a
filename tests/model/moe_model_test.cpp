// tests/model/moe_model_test.cpp -- a whole model with experts, some of them idle: threads,
// recomputation, batches of sequences.
#include <gtest/gtest.h>

#include "model/generate/generator.h"
#include "tests/support/cpu_context.h"
#include "tests/support/tiny_model.h"

namespace sluice {
namespace {

class MoeModel : public ::testing::Test {
 protected:
  MoeModel() : params_(DType::f32), lm_(test::tiny_moe_config(), params_) {
    params_.allocate();
    initialize(params_, 11);
    test::set_unequal_loads(params_);
    for (int64_t n = 0; n < 200; ++n) prompt_.push_back(int32_t(random_u64(4, uint64_t(n)) % 29));
  }
  // Loss and all gradients.
  std::vector<double> trained(int threads, Recompute recompute) {
    const test::CpuContext ctx(Mode::run, threads);
    const test::Documents docs({17, 0, 40, 130});
    params_.start_step();
    Tape tape(ctx, params_, Tape::Mode::train);
    const Var loss = lm_.loss(tape, docs.batch(), recompute);
    tape.backward(loss);
    params_.finish_gradients();
    std::vector<double> all{*loss.value.as<double>()};
    for (const Shard& s : params_.trained_shards())
      for (int64_t i = 0; i < s.grad.numel(); ++i) all.push_back(test::element(s.grad, i));
    return all;
  }

  PlainStore params_;
  Lm lm_;
  std::vector<int32_t> prompt_;
};

TEST_F(MoeModel, ThreadsAndRecomputationChangeNoBit) {
  const std::vector<double> one = trained(1, Recompute::none);
  EXPECT_TRUE(one == trained(2, Recompute::none));
  EXPECT_TRUE(one == trained(3, Recompute::none));
  EXPECT_TRUE(one == trained(2, Recompute::selective));
  EXPECT_TRUE(one == trained(2, Recompute::block));
}

// The search for a bad number looks at every gradient there is: the biases have none.
TEST_F(MoeModel, TheSearchForBadNumbersPassesAGoodModel) {
  const test::CpuContext ctx;
  const test::Documents docs({17, 40});
  for (const Recompute recompute : {Recompute::none, Recompute::selective, Recompute::block}) {
    params_.start_step();
    Tape tape(ctx, params_, Tape::Mode::train);
    NonfiniteFinding first;
    tape.report_nonfinite(&first);
    tape.backward(lm_.loss(tape, docs.batch(), recompute));
    EXPECT_EQ(first.what, "");
  }
}

// Idle experts have gradient zero in both of their matrices, the others do not.
TEST_F(MoeModel, IdleExpertsLearnNothing) {
  trained(2, Recompute::none);
  for (const char* name : {"layers.2.ffn.experts.gate_up_proj", "layers.2.ffn.experts.down_proj"}) {
    const Tensor grad = params_.shards()[size_t(params_.find(name).index)].grad;
    const int64_t each = grad.numel() / 6;
    for (int64_t e = 0; e < 6; ++e) {
      double sum = 0;
      for (int64_t i = 0; i < each; ++i) sum += std::abs(test::element(grad, e * each + i));
      EXPECT_EQ(sum == 0, e % 3 == 1) << name << " " << e;
    }
  }
}

// Who else is in the batch, and so how many rows an expert gets, changes no bit of a sequence.
TEST_F(MoeModel, ASequenceDoesNotSeeItsBatch) {
  ThreadPool pool(2);
  const Context ctx{.threads = &pool};
  const auto run = [&](int64_t others) {
    Generator g(ctx, params_, lm_, DType::f32,
                {.slots = others + 1, .max_tokens = 100, .prefill_chunk_tokens = 400});
    std::vector<Generator::Piece> prompts, steps;
    for (int64_t s = 0; s <= others; ++s) {
      const int64_t slot = g.join().value();
      prompts.push_back(
          {slot, std::span(prompt_).subspan(size_t(s), size_t(s == 0 ? 50 : 20 + s))});
      steps.push_back({slot, std::span(prompt_).subspan(size_t(60 + s), 1)});
    }
    std::vector<double> logits;
    const auto keep = [&](const Tensor& t) {
      for (int64_t i = 0; i < t.dim(1); ++i) logits.push_back(test::element(t, i));
    };
    keep(g.feed(CacheStep::prefill, prompts));
    for (int i = 0; i < 3; ++i) keep(g.feed(CacheStep::decode, steps));
    return logits;
  };
  const std::vector<double> alone = run(0);
  for (const int64_t others : {1, 4, 9}) EXPECT_TRUE(run(others) == alone) << others;
}

}  // namespace
}  // namespace sluice
