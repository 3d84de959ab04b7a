// tests/trainer/memory_test.cpp -- `sluice plan` says what training takes.
#include "trainer/loop/memory.h"

#include <gtest/gtest.h>

#include "tests/support/message.h"
#include "tests/support/tiny_run.h"

namespace sluice {
namespace {

class Memory : public test::TinyRun {
 protected:
  static void expect_equal(const MemoryPlan& a, const MemoryPlan& b) {
    EXPECT_EQ(a.params.masters, b.params.masters);
    EXPECT_EQ(a.params.gradients, b.params.gradients);
    EXPECT_EQ(a.params.copies, b.params.copies);
    EXPECT_EQ(a.moments, b.moments);
    EXPECT_EQ(a.inputs, b.inputs);
    EXPECT_EQ(a.control, b.control);
    EXPECT_EQ(a.step, b.step);
    EXPECT_EQ(a.at_peak, b.at_peak);
  }
};

TEST_F(Memory, WhatIsPlannedIsTaken) {
  Config adamw = config("adamw"), muon = config("muon"), moe = config("moe"), staged = config("s");
  muon.optim.kind = "muon";
  muon.train.recompute = "block";
  moe.model = test::tiny_moe_config();
  moe.model.vocab_size.reset();
  staged.train.stages.emplace_back();
  staged.train.stages[0].at_step = 2;
  staged.train.stages[0].seq_len_tokens = 192;
  staged.train.batch_tokens = staged.train.micro_batch_tokens = 192;
  for (const Config& c : {adamw, muon, moe, staged}) {
    const MemoryPlan plan = plan_memory(c);
    ::testing::internal::CaptureStdout();
    Trainer t(c);
    for (int i = 0; i < 4; ++i) t.train_step();
    ::testing::internal::GetCapturedStdout();
    expect_equal(t.memory(), plan);
    EXPECT_EQ(t.arena_peak(), plan.step) << c.run.dir;
    const int64_t n = t.params().numel();
    EXPECT_GE(plan.params.masters, 4 * n);
    EXPECT_EQ(plan.params.copies, 0);
    int64_t named = 0;
    for (const int64_t bytes : plan.at_peak) named += bytes;
    EXPECT_GT(plan.at_peak[size_t(Purpose::activations)], 0);
    EXPECT_GE(plan.step, named);
  }
}

// Shapes alone: no shard, no tokenizer, no GPU, and more than this machine has.
TEST_F(Memory, AGpuIsPlannedWithoutOne) {
  Config c;
  c.run.device = "cuda";
  c.model.vocab_size = 32000;
  c.data.seq_len_tokens = 4096;
  c.train.batch_tokens = c.train.micro_batch_tokens = 16384;
  const MemoryPlan plan = plan_memory(c);
  PlainStore params(DType::f32, Device::cuda);
  const Lm lm(c.model, params);
  const int64_t n = params.numel();
  EXPECT_GE(plan.params.masters, 4 * n);
  EXPECT_EQ(plan.params.copies * 2, plan.params.masters);
  EXPECT_EQ(plan.moments, 8 * n);
  EXPECT_GE(plan.inputs, 2 * 4 * 16384);
  EXPECT_EQ(plan.at_peak[size_t(Purpose::workspace)] % (int64_t(32) << 20), 0);
  const std::string text = to_string(plan, "cuda");
  test::expect_contains(text, {"memory on cuda", "bf16 copies", "moments", "scratch"});
  EXPECT_NE(text.find(std::to_string(plan.total())), std::string::npos) << text;
}

}  // namespace
}  // namespace sluice
