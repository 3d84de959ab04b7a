// tests/trainer/muon_test.cpp -- runs with Muon and QK-clip: resumed and threaded to the same bits,
// skipped steps, metrics, and no change of kind.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "tests/support/tiny_run.h"
#include "trainer/loop/compare.h"

namespace sluice {
namespace {

class MuonRun : public test::TinyRun {
 protected:
  Config config(const std::string& run, int64_t threads = 1) const {
    Config c = TinyRun::config(run, threads);
    c.model = test::tiny_moe_config();
    c.model.vocab_size.reset();
    c.optim.kind = "muon";
    c.optim.qk_clip_threshold = 1e-3;  // far below what the model starts with
    return c;
  }
};

TEST_F(MuonRun, KilledRunsAndOtherThreadsGiveTheSameBits) {
  const Config straight = config("straight"), killed = config("killed", 2);
  run_to_the_end(straight);
  run_killed_after(14, killed);
  for (const std::string& d : compare_runs(straight.run.dir, killed.run.dir)) ADD_FAILURE() << d;
  for (const char* line : {"100 Newton-Schulz calls a step",
                           "QK-clip holds 2 heads of 1 attention layers to logits of 0.001"})
    EXPECT_NE(log(straight).find(line), std::string::npos) << log(straight);
}

TEST_F(MuonRun, AnotherKindIsRefused) {
  Config c = config("run");
  c.train.steps = 7;
  run_to_the_end(c);
  c.optim.kind = "adamw";
  const std::string error = error_of(c);
  EXPECT_NE(error.find("optim.kind: was muon, is adamw: another optimizer"), std::string::npos)
      << error;
  c.run.init = {.from = c.run.dir, .load = "all"};
  c.run.dir = dir_ / "branch";
  EXPECT_NE(error_of(c).find("layers.0.kda.qkv_proj.v: not there"), std::string::npos)
      << error_of(c);
}

TEST_F(MuonRun, MetricsHaveTheLargestLogitAndTheHeadsClipped) {
  for (const auto& [threshold, clipped] :
       {std::pair{std::optional<double>(), -1.0}, {1e-3, 2.0}, {1e3, 0.0}}) {
    Config c = config(cat("run", clipped));
    c.train.steps = 3;
    c.optim.qk_clip_threshold = threshold;
    run_to_the_end(c);
    std::istringstream lines(read(c.run.dir + "/metrics.jsonl"));
    int64_t steps = 0;
    for (std::string line; std::getline(lines, line);) {
      const auto j = nlohmann::json::parse(line);
      if (j["event"] != "train") continue;
      ++steps;
      const double heads = j.value("qk_clipped_heads", -1.0), logit = j["max_attention_logit"];
      if (steps == 1) {
        EXPECT_EQ(heads, clipped) << line;
      }
      EXPECT_EQ(heads > 0, threshold && logit > *threshold) << line;
      EXPECT_EQ(logit<0.01, clipped> 0 && steps > 1) << line;  // it stays down, or as it was
    }
    EXPECT_EQ(steps, 3);
  }
}

TEST_F(MuonRun, ASkippedStepLeavesWeightsAndMomentum) {
  const Config c = config("run");
  ::testing::internal::CaptureStdout();
  Trainer t(c);
  t.train_step();
  const Tensor keys =
      t.params().shards()[size_t(t.params().find("layers.3.mla.kv_b_proj").index)].master;
  for (int64_t i = 0; i < keys.numel(); ++i)
    keys.as<float>()[i] *= 1e3f;  // over the threshold again
  t.save();
  const Tensor norm = t.params().shards()[size_t(t.params().find("head.norm").index)].master;
  const float was = *norm.as<float>();
  *norm.as<float>() = NAN;
  t.train_step();
  *norm.as<float>() = was;
  t.save();
  ::testing::internal::GetCapturedStdout();
  for (const Part part : {Part::weights, Part::optimizer}) {
    std::string first, second;
    for (const CheckpointRef& ref : list_checkpoints(c.run.dir))
      (ref.step == 1 ? first : second) = read(file_of(ref, part));
    EXPECT_FALSE(first.empty());
    EXPECT_TRUE(first == second);
  }
}

}  // namespace
}  // namespace sluice
