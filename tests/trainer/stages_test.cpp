// tests/trainer/stages_test.cpp -- train.stages: what each step reads and learns with, and
// resuming.
#include "trainer/loop/stages.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "configs/schema.h"
#include "optim/schedule.h"
#include "tests/support/tiny_run.h"
#include "trainer/loop/compare.h"
#include "trainer/loop/resume.h"

namespace sluice {
namespace {

class Stages : public test::TinyRun {
 protected:
  // Rows of 64 tokens, rows of 256 from step 10 on, another mixture and a decay from step 17 on.
  Config staged(const std::string& run) const {
    Config c = config(run);
    c.data.seq_len_tokens = 64;
    c.train.batch_tokens = 512;
    c.train.micro_batch_tokens = 256;
    c.optim.schedule.decay_steps = 0;
    c.train.stages.resize(2);
    c.train.stages[0].at_step = 10;
    c.train.stages[0].seq_len_tokens = 256;
    c.train.stages[1].at_step = 17;
    c.train.stages[1].data.train = {{.path = dir_ / "train.h5", .weight = 3, .max_epochs = 100},
                                    {.path = dir_ / "valid.h5", .weight = 1, .max_epochs = 100}};
    c.train.stages[1].schedule.emplace();
    c.train.stages[1].schedule->lr = 1e-3;
    c.train.stages[1].schedule->decay_steps = 7;
    return c;
  }
  std::vector<double> lrs(const Config& c) const {
    std::vector<double> list;
    std::istringstream lines(read(c.run.dir + "/metrics.jsonl"));
    for (std::string line; std::getline(lines, line);) {
      const auto j = nlohmann::json::parse(line);
      if (j["event"] == "train") list.push_back(j["lr"]);
    }
    return list;
  }
};

TEST_F(Stages, ResolveToPartsOfDataAndOfSchedule) {
  Config c = staged("run");
  c.train.stages[1].schedule->warmup_steps = 2;
  const std::vector<DataPart> data = data_parts(c);
  ASSERT_EQ(data.size(), 3u);
  const int64_t begins[] = {0, 10, 17}, ends[] = {10, 17, 24}, lengths[] = {64, 256, 256};
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(data[i].begin, begins[i]);
    EXPECT_EQ(data[i].end, ends[i]);
    EXPECT_EQ(data[i].data.seq_len_tokens, lengths[i]);
    EXPECT_EQ(data[i].data.train.size(), i < 2 ? 1u : 2u);
    EXPECT_EQ(data[i].data.validation.size(), 1u);  // as before
    for (size_t j = 0; j < i; ++j) EXPECT_NE(data[i].data.seed, data[j].data.seed);
  }
  EXPECT_EQ(data[0].data.seed, c.data.seed);
  const std::vector<SchedulePart> lr = schedule_parts(c);
  ASSERT_EQ(lr.size(), 2u);  // the first stage has none
  EXPECT_EQ(lr[0].end, 17);
  EXPECT_EQ(lr[1].optim.lr, 1e-3);
  EXPECT_EQ(lr[1].optim.betas, c.optim.betas);
  for (int64_t done = 0; done < 24; ++done)
    EXPECT_EQ(lr_after(lr, done),
              done < 17 ? lr_at(c.optim, done + 1, 17) : lr_at(lr[1].optim, done - 17 + 1, 7));

  // A new schedule alone does not disturb the order of the data.
  c.train.stages[1].data.train.clear();
  EXPECT_EQ(data_parts(c).size(), 2u);
  EXPECT_EQ(schedule_parts(c).size(), 2u);
}

// A stage's order is a function of data.seed and its first step, whatever the stages before it.
TEST_F(Stages, TheOrderOfAPartIsItsOwn) {
  Config c = staged("run");
  const int64_t seed = data_parts(c)[2].data.seed;
  c.train.stages[0].at_step = 3;
  EXPECT_EQ(data_parts(c)[2].data.seed, seed);
  c.data.seed = 2;
  EXPECT_NE(data_parts(c)[2].data.seed, seed);
}

TEST_F(Stages, KilledInsideAnyStageGivesTheSameBits) {
  const Config straight = staged("straight");
  run_to_the_end(straight);
  const std::vector<double> lr = lrs(straight);
  ASSERT_EQ(lr.size(), 24u);
  EXPECT_EQ(lr[15], double(float(straight.optim.lr)));
  EXPECT_EQ(lr[17], double(float(1e-3)));
  EXPECT_LT(lr[23], 1e-4);
  EXPECT_NE(log(straight).find("stage    from step 11 on: rows of 256 tokens, 2 a batch"),
            std::string::npos)
      << log(straight);
  for (const int64_t step : {7, 14, 21}) {  // one inside each
    Config killed = staged("killed" + std::to_string(step));
    killed.checkpoint.every_steps = step;
    const int status = run_child(killed, [&](pid_t child) {
      wait_for_step(killed, step);
      kill(child, SIGKILL);
    });
    EXPECT_TRUE(WIFSIGNALED(status)) << status;
    run_to_the_end(killed);
    for (const std::string& d : compare_runs(straight.run.dir, killed.run.dir))
      ADD_FAILURE() << step << ": " << d;
  }
}

// Shorter rows mean more documents in a micro-batch and so more memory: here the second stage's.
TEST_F(Stages, MemoryIsThatOfTheLargestStage) {
  Config c = staged("run");
  c.data.seq_len_tokens = 256;
  c.train.stages.resize(1);
  c.train.stages[0].seq_len_tokens = 16;
  run_to_the_end(c);
}

// The loader of a stage counts from its first step: rows for just so many steps are enough.
TEST_F(Stages, AStageReadsItsDataFromTheirBeginning) {
  Config c = config("run");
  const int64_t rows = ShardReader(dir_ / "valid.h5").tokens() / 32;
  c.data.seq_len_tokens = c.train.batch_tokens = c.train.micro_batch_tokens = 32;
  c.train.steps = 12 + rows;
  c.train.stages.resize(1);
  c.train.stages[0].at_step = 12;
  c.train.stages[0].data.train = {{.path = dir_ / "valid.h5", .weight = 1, .max_epochs = 1}};
  run_to_the_end(c);
  ++c.train.steps;
  EXPECT_NE(error_of(c).find("may be read 1 times"), std::string::npos) << error_of(c);
}

// With rows of the same length throughout, a stage that only sets the schedule is the plain run.
TEST_F(Stages, AScheduleAloneGoesOnInTheData) {
  Config plain = config("plain"), split = config("split");
  plain.optim.schedule.decay_steps = split.optim.schedule.decay_steps = 0;
  split.train.stages.resize(1);
  split.train.stages[0].at_step = 12;
  split.train.stages[0].schedule.emplace();
  split.train.stages[0].schedule->decay_steps = 0;
  run_to_the_end(plain);
  run_to_the_end(split);
  for (const std::string& d : compare_runs(plain.run.dir, split.run.dir)) ADD_FAILURE() << d;
}

TEST_F(Stages, EveryStageIsCheckedBeforeTheFirstStep) {
  Config c = staged("run");
  c.train.stages[1].data.train[1].path = dir_ / "missing.h5";
  EXPECT_NE(error_of(c).find("train.stages, at_step 17: "), std::string::npos) << error_of(c);
  EXPECT_NE(error_of(c).find("missing.h5"), std::string::npos) << error_of(c);
  c = staged("run");
  c.train.stages[0].seq_len_tokens = 96;
  EXPECT_NE(error_of(c).find("train.stages, at_step 10: "), std::string::npos) << error_of(c);
  EXPECT_NE(error_of(c).find("train.batch_tokens is 512, expected a multiple"), std::string::npos)
      << error_of(c);
  c = staged("run");
  c.train.steps = 2000;
  c.train.stages[1].data.train[1].max_epochs = 2;
  EXPECT_NE(error_of(c).find("2 times; 1983 steps need"), std::string::npos) << error_of(c);
}

// What was read is fixed, what is to come is not.
TEST_F(Stages, ThePastOfARunIsFixed) {
  const Config before = staged("run");
  EXPECT_TRUE(changed_past(before, before, 24).empty());
  Config c = before;
  c.train.stages[0].at_step = 12;
  EXPECT_TRUE(changed_past(before, c, 10).empty());
  EXPECT_EQ(changed_past(before, c, 11).size(), 1u);  // data changed once, not at all by this one
  EXPECT_EQ(
      changed_past(before, c, 14),
      std::vector<std::string>({"train.stages: data changed at step 10, at 12 by this config",
                                cat("data.seed from step 10: was ", data_parts(before)[1].data.seed,
                                    ", is ", data_parts(c)[1].data.seed)}));
  c = before;
  c.train.stages[1].data.train[0].weight = 5;
  EXPECT_TRUE(changed_past(before, c, 17).empty());
  EXPECT_EQ(changed_past(before, c, 18),
            std::vector<std::string>({"data.train[0].weight from step 17: was 3, is 5"}));
  CheckpointMeta meta;
  meta.step = 18;
  meta.config_yaml = config::print(before);
  EXPECT_EQ(check_resume(meta, c, {}).fatal.size(), 1u);
  meta.step = 17;
  EXPECT_TRUE(check_resume(meta, c, {}).fatal.empty());
}

TEST(StageConfig, ReadsPrintsAndRefuses) {
  const std::string yaml =
      "train:\n"
      "  steps: 300\n"
      "  stages:\n"
      "    - {at_step: 100, seq_len_tokens: 1024}\n"
      "    - at_step: 200\n"
      "      data: {train: [{path: b.h5}], validation: {b: v.h5}}\n"
      "      schedule: {kind: wsd, lr: 1.0e-3, decay_steps: 50}\n";
  const auto c = config::load_string<Config>(yaml, "c.yaml");
  ASSERT_EQ(c.train.stages.size(), 2u);
  EXPECT_EQ(c.train.stages[0].seq_len_tokens, 1024);
  EXPECT_FALSE(c.train.stages[0].schedule);
  EXPECT_EQ(c.train.stages[1].data.train[0].path, "b.h5");
  EXPECT_EQ(c.train.stages[1].schedule->lr, 1e-3);
  EXPECT_EQ(c.train.stages[1].schedule->warmup_steps, 0);
  const auto again = config::load_string<Config>(config::print(c), "printed");
  EXPECT_TRUE(config::diff(c, again).empty()) << config::print(c);
  try {
    config::load_string<Config>(yaml, "c.yaml", {"train.steps=200", "train.stages.0.at_step=200"});
    FAIL() << "expected an Error";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("train.stages: [0].at_step: expected above 0 and below "
                                         "steps (200), got \"200\""),
              std::string::npos)
        << e.what();
    EXPECT_NE(std::string(e.what()).find("[1].at_step: expected above 200 (the stage before)"),
              std::string::npos)
        << e.what();
  }
}

}  // namespace
}  // namespace sluice
