// tests/trainer/experts_test.cpp -- a run with experts: biases move once a step by the load of all
// micro-batches, not in validation and not in a skipped step; metrics and log say so.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "tests/support/tiny_run.h"
#include "trainer/loop/compare.h"

namespace sluice {
namespace {

class Experts : public test::TinyRun {
 protected:
  // Two dense layers, two with experts.
  Config config(const std::string& run, int64_t threads = 1) const {
    Config c = TinyRun::config(run, threads);
    c.model = test::tiny_moe_config();
    c.model.vocab_size.reset();
    c.model.moe.first_k_dense_replace = 2;
    return c;
  }
  static std::vector<float> biases(ParamStore& params) {
    std::vector<float> all;
    for (const Shard& s : params.shards())
      if (params.spec(s.id).rule == UpdateRule::expert_load)
        all.insert(all.end(), s.master.as<float>(), s.master.as<float>() + s.master.numel());
    return all;
  }
};

TEST_F(Experts, BiasesMoveOnceAStepAndAreSaved) {
  Config c = config("run");
  c.model.moe.bias_update_rate = 0.125;
  ::testing::internal::CaptureStdout();
  Trainer t(c);
  std::vector<float> before = biases(t.params());
  ASSERT_EQ(before, std::vector<float>(12, 0));  // two layers of six experts
  for (int step = 0; step < 3; ++step) {
    t.train_step();
    const std::vector<float> after = biases(t.params());
    int moved = 0;
    for (size_t i = 0; i < after.size(); ++i) {
      const float by = std::abs(after[i] - before[i]);
      EXPECT_TRUE(by == 0 || by == 0.125f) << by;
      moved += by != 0;
    }
    EXPECT_GT(moved, 6);
    before = after;
  }

  // A bad number: the step is skipped, and run once more to find it, without any count.
  float& element =
      *t.params().shards()[size_t(t.params().find("head.norm").index)].master.as<float>();
  const float was = element;
  element = NAN;
  t.train_step();
  element = was;
  EXPECT_EQ(biases(t.params()), before);
  t.save();
  ::testing::internal::GetCapturedStdout();
}

TEST_F(Experts, KilledRunsAndOtherThreadsGiveTheSameBits) {
  const Config straight = config("straight"), killed = config("killed", 2);
  run_to_the_end(straight);
  run_killed_after(14, killed);
  for (const std::string& d : compare_runs(straight.run.dir, killed.run.dir)) ADD_FAILURE() << d;
}

TEST_F(Experts, MetricsAndLog) {
  const Config c = config("run");
  run_to_the_end(c);
  std::istringstream lines(read(c.run.dir + "/metrics.jsonl"));
  int64_t steps = 0;
  for (std::string line; std::getline(lines, line);) {
    const auto j = nlohmann::json::parse(line);
    if (j["event"] != "train") continue;
    ++steps;
    EXPECT_GE(j["expert_load_worst"], j["expert_load_mean"]);
    EXPECT_GE(j["expert_load_mean"], 1);
    EXPECT_LE(j["expert_load_worst"], 3);  // six experts, two a token
    EXPECT_GE(j["experts_idle"], 0);
  }
  EXPECT_EQ(steps, 24);
  EXPECT_NE(log(c).find("experts  step 12  max/mean "), std::string::npos) << log(c);
}

TEST_F(Experts, ADenseRunSaysNothingOfThem) {
  Config c = config("run");
  c.model.ffn = "dense";
  c.train.steps = 2;
  run_to_the_end(c);
  EXPECT_EQ(log(c).find("expert"), std::string::npos) << log(c);
  EXPECT_EQ(read(c.run.dir + "/metrics.jsonl").find("expert_load"), std::string::npos);
}

}  // namespace
}  // namespace sluice
