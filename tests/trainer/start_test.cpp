// tests/trainer/start_test.cpp -- where a run starts: run.init, --fresh, and what is refused.
#include <gtest/gtest.h>

#include <cstring>

#include "configs/schema.h"
#include "kernels/tensor/buffer.h"
#include "model/export/safetensors.h"
#include "tests/support/error.h"
#include "tests/support/tiny_run.h"
#include "trainer/loop/compare.h"
#include "trainer/loop/model_file.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;

class Start : public test::TinyRun {
 protected:
  std::string newest(const std::string& run, Part part) const {
    return read(file_of(*find_newest_valid(dir_ / run, nullptr), part));
  }
  // 14 steps at full rate: something to branch off.
  Config stable() const {
    Config c = config("stable");
    c.train.steps = 14;
    c.optim.schedule.decay_steps = 0;
    return c;
  }
  Config branch(const std::string& run, const std::string& decay) const {
    Config c = config(run);
    c.run.init = {.from = dir_ / "stable", .load = "all"};
    c.optim.schedule.decay_steps = 10;
    c.optim.schedule.decay = decay;
    return c;
  }
};

// One stable run, two decays; each is the run that would have had this schedule from the start.
TEST_F(Start, TwoDecaysBranchOffOneStableCheckpoint) {
  run_to_the_end(stable());
  run_to_the_end(branch("root", "1-sqrt"));
  run_to_the_end(branch("linear", "linear"));
  for (const char* decay : {"1-sqrt", "linear"}) {
    Config whole = branch("whole", decay);
    whole.run.init.reset();
    run_to_the_end(whole);
    const std::string run = decay == std::string("linear") ? "linear" : "root";
    for (const Part part : {Part::weights, Part::optimizer})
      EXPECT_TRUE(newest(run, part) == newest("whole", part)) << decay;
    fs::remove_all(dir_ / "whole");
  }
  EXPECT_FALSE(newest("root", Part::weights) == newest("linear", Part::weights));
}

TEST_F(Start, ABranchResumesWithTheSameBitsAndWithoutItsOrigin) {
  run_to_the_end(stable());
  run_to_the_end(branch("straight", "linear"));
  const Config c = branch("killed", "linear");
  const int status = run_child(c, [&](pid_t child) {
    wait_for_step(c, 21);
    kill(child, SIGKILL);
  });
  EXPECT_TRUE(WIFSIGNALED(status)) << status;
  fs::remove_all(dir_ / "stable");
  run_to_the_end(c);
  EXPECT_NE(log(c).find("run.init was for the first start"), std::string::npos) << log(c);
  for (const std::string& d : compare_runs(dir_ / "straight", dir_ / "killed")) ADD_FAILURE() << d;
  const CheckpointMeta meta = load_meta(*find_newest_valid(c.run.dir, nullptr));
  EXPECT_EQ(meta.integers.at("init.step"), 14);
  EXPECT_TRUE(meta.integers.contains("init.weights_crc32"));
  const auto saved = config::load_string<Config>(meta.config_yaml, "config.yaml");
  EXPECT_EQ(saved.run.init->from, dir_ / "stable");
}

TEST_F(Start, WarmStartTakesTheWeightsAndNothingElse) {
  run_to_the_end(stable());
  Config c = config("warm");
  c.run.init = {.from = dir_ / "stable/checkpoints/step-00000014", .load = "weights"};
  c.run.seed = 5;
  c.data.seed = 7;
  c.optim.weight_decay = 0.02;
  ::testing::internal::CaptureStdout();
  {
    Trainer t(c);
    EXPECT_EQ(t.step(), 0);
    LoadedModel from = load_model(dir_ / "stable");
    for (size_t i = 0; i < from.params->shards().size(); ++i) {
      const Tensor a = from.params->shards()[i].master, b = t.params().shards()[i].master;
      EXPECT_EQ(std::memcmp(a.data, b.data, size_t(a.bytes())), 0);
    }
    t.save();
  }
  const std::string out = ::testing::internal::GetCapturedStdout();
  EXPECT_NE(out.find("init     weights of "), std::string::npos) << out;
  EXPECT_NE(out.find("(step 14); this run begins at step 0"), std::string::npos) << out;
  EXPECT_NE(out.find("differs  optim.weight_decay: there 0.1, here 0.02"), std::string::npos)
      << out;
  const SafetensorsReader moments(file_of(*find_newest_valid(c.run.dir, nullptr), Part::optimizer));
  for (const SafetensorsEntry& e : moments.entries()) {
    const Buffer x(e.dtype, {e.numel()});
    moments.read_slice(e.name, 0, x.view());
    for (int64_t i = 0; i < e.numel(); ++i) ASSERT_EQ(test::element(x.view(), i), 0) << e.name;
  }
}

TEST_F(Start, AWarmStartResumesWithTheSameBits) {
  run_to_the_end(stable());
  Config a = config("straight"), b = config("killed");
  for (Config* c : {&a, &b}) {
    c->run.init = {.from = dir_ / "stable", .load = "weights"};
    c->data.seed = 7;
  }
  run_to_the_end(a);
  run_killed_after(14, b);
  for (const std::string& d : compare_runs(a.run.dir, b.run.dir)) ADD_FAILURE() << d;
  EXPECT_NE(read(a.run.dir + "/metrics.jsonl").find("\"step\":24"), std::string::npos);
}

TEST_F(Start, TensorsThatDoNotFitAreNamedWithBothShapes) {
  run_to_the_end(stable());
  Config c = config("other");
  c.run.init = {.from = dir_ / "stable", .load = "weights"};
  c.model.intermediate_size = 48;
  const std::string wider = error_of(c);
  EXPECT_NE(wider.find("layers.0.ffn.down_proj: there f32 [24, 32], here f32 [24, 48]"),
            std::string::npos)
      << wider;
  c = config("other");
  c.run.init = {.from = dir_ / "stable", .load = "weights"};
  c.model.num_hidden_layers = 8;
  const std::string deeper = error_of(c);
  EXPECT_NE(deeper.find("layers.4."), std::string::npos) << deeper;
  EXPECT_NE(deeper.find(": not there, here f32 ["), std::string::npos) << deeper;
  c.model.num_hidden_layers = 4;
  c.model.ratio = "1:1";
  EXPECT_NE(error_of(c).find(", not here"), std::string::npos) << error_of(c);
  EXPECT_FALSE(fs::exists(dir_ / "other/metrics.jsonl"));
}

TEST_F(Start, ABranchThatHasNothingLeftToTrainIsRefused) {
  run_to_the_end(stable());
  Config c = branch("branch", "linear");
  c.train.steps = 14;
  EXPECT_NE(error_of(c).find("goes on after step 14"), std::string::npos) << error_of(c);
}

TEST_F(Start, FreshRefusesAFolderThatWasUsed) {
  Config c = config("run");
  c.train.steps = 7;
  fs::create_directories(c.run.dir);
  std::ofstream(c.run.dir + "/notes.txt") << "not ours";
  EXPECT_EQ(error_of(c, Trainer::Folder::fresh), "no error");
  run_to_the_end(c);
  const std::string text = error_of(c, Trainer::Folder::fresh);
  EXPECT_NE(text.find("--fresh: " + c.run.dir + " is a run's folder already:\n  1 checkpoints in " +
                      c.run.dir + "/checkpoints\n  " + c.run.dir + "/metrics.jsonl\n"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("use another run.dir"), std::string::npos) << text;
}

TEST(InitConfig, FromIsNeeded) {
  try {
    config::load_string<Config>("run:\n  init: {load: all}\n", "c.yaml");
    FAIL() << "expected an Error";
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(),
                 "c.yaml:2:9: run.init: expected {from: RUN_OR_CHECKPOINT}, which is missing");
  }
}

}  // namespace
}  // namespace sluice
