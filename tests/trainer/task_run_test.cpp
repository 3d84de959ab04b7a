// tests/trainer/task_run_test.cpp -- runs on a task: no files are read, what is measured, resuming.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "configs/schema.h"
#include "tests/support/message.h"
#include "tests/support/tiny_run.h"
#include "trainer/loop/compare.h"

namespace sluice {
namespace {

class TaskRun : public test::TinyRun {
 protected:
  Config task_config(const std::string& run, const std::string& kind = "mqar") const {
    Config c = config(run);
    c.data = {};
    c.data.seq_len_tokens = 32;
    TaskConfig& task = c.data.task.emplace();
    task.kind = kind;
    task.palindrome.symbols = task.mqar.values = task.stack.items = 4;
    task.mqar.keys = 12;
    task.stack.stacks = 2;
    task.validation_examples = 7;
    task.validation_lengths_tokens = {20, 48};
    c.train.batch_tokens = 32 * 5;  // the third micro-batch is half padding
    c.train.micro_batch_tokens = 32 * 2;
    return c;
  }
  static std::vector<nlohmann::json> events(const Config& c, const std::string& name) {
    std::vector<nlohmann::json> out;
    std::ifstream in(c.run.dir + "/metrics.jsonl");
    for (std::string line; std::getline(in, line);)
      if (auto e = nlohmann::json::parse(line); e["event"] == name) out.push_back(e);
    return out;
  }
  // The text of the config's problems.
  static std::string problems_of(const std::string& yaml) {
    return test::error_of([&] { config::load_string<Config>(yaml, "c.yaml"); });
  }
};

TEST_F(TaskRun, EveryKindTrainsAndIsMeasured) {
  const std::map<std::string, int64_t> vocab{{"palindrome", 5}, {"mqar", 17}, {"stack", 8}};
  for (const auto& [kind, words] : vocab) {
    const Config c = task_config(kind, kind);
    run_to_the_end(c);
    for (const char* set : {"valid.task", "valid.task_20", "valid.task_48"}) {
      const auto found = events(c, set);
      ASSERT_EQ(found.size(), 2u) << kind;
      EXPECT_NEAR(found[0]["loss"], std::log(double(words)), 2) << kind;
      EXPECT_FALSE(found[0].contains("bits_per_byte"));
      // A count of the answers of 7 examples.
      const auto task = make_task(*c.data.task, set == std::string("valid.task")      ? 32
                                                : set == std::string("valid.task_20") ? 20
                                                                                      : 48);
      const double right = double(found[1]["accuracy"]) * double(7 * task->facts().answers);
      EXPECT_NEAR(right, std::round(right), 1e-9);
    }
    ASSERT_EQ(events(c, "train").size(), 24u);
    for (const auto& e : events(c, "train")) EXPECT_GE(e["data_wait_ms"], 0) << e;
    EXPECT_NE(log(c).find("(chance 0.2500)"), std::string::npos) << log(c);
    EXPECT_NE(read(c.run.dir + "/config.yaml").find("vocab_size: " + std::to_string(words)),
              std::string::npos);
  }
}

// Two symbols at length 4 are four palindromes: a model that learns anything knows them all.
TEST_F(TaskRun, AccuracyIsOneWhereAllIsLearnt) {
  Config c = task_config("easy", "palindrome");
  c.data.seq_len_tokens = 4;
  c.data.task->palindrome.symbols = 2;
  c.data.task->validation_lengths_tokens = {};
  c.train.steps = 150;
  c.train.validate_every_steps = 150;
  c.train.batch_tokens = c.train.micro_batch_tokens = 64;
  c.optim.lr = 1e-2;
  run_to_the_end(c);
  const auto found = events(c, "valid.task");
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0]["accuracy"], 1.0) << found[0];
}

TEST_F(TaskRun, ResumesWithTheSameBits) {
  const Config straight = task_config("straight"), killed = task_config("killed");
  run_to_the_end(straight);
  run_killed_after(7, killed);
  for (const std::string& d : compare_runs(straight.run.dir, killed.run.dir)) ADD_FAILURE() << d;
  EXPECT_NE(log(killed).find("(bitwise)"), std::string::npos) << log(killed);

  Config c = killed;
  c.train.steps = 30;
  c.data.task->validation_lengths_tokens = {};
  run_to_the_end(c);
  EXPECT_NE(log(c).find("data.task.validation_lengths_tokens: was [20, 48], is [] (no effect"),
            std::string::npos)
      << log(c);
  c.data.task->mqar.pairs = 9;
  c.train.steps = 31;
  EXPECT_NE(error_of(c).find("data.task.mqar.pairs from step 0: was null, is 9"), std::string::npos)
      << error_of(c);
}

TEST_F(TaskRun, SupplyIsCheckedBeforeTheFirstStep) {
  Config c = task_config("run");  // 24 steps of 5 rows
  c.data.task->train_examples = 60;
  c.data.task->max_epochs = 2;
  EXPECT_EQ(error_of(c), "no error");
  c.data.task->train_examples = 59;
  test::expect_contains(error_of(c), {"data.task (mqar) has 59 rows", "120 rows, 3 epochs"});
  c.data.task->train_examples = {};
  c.data.task->validation_lengths_tokens = {3};
  test::expect_contains(error_of(c), {"mqar", "row of 3 tokens"});
  c.data.task->validation_lengths_tokens = {};
  c.model.vocab_size = 16;
  test::expect_contains(error_of(c), {"model.vocab_size is 16, the task has 17"});
}

TEST_F(TaskRun, StagesMayChangeTheLength) {
  Config c = task_config("run", "stack");
  c.train.batch_tokens = c.train.micro_batch_tokens = 192;
  c.train.stages = {{.at_step = 10, .seq_len_tokens = 64, .data = {}, .schedule = {}}};
  run_to_the_end(c);
  EXPECT_EQ(events(c, "valid.task").size(), 2u);
  EXPECT_EQ(events(c, "stage").size(), 1u);
}

TEST_F(TaskRun, KeysOfTextAreErrors) {
  test::expect_contains(
      problems_of("data: {task: {kind: stack}, tokenizer: t.json, packing: best_fit,\n"
                  "  train: [{path: a.h5}], validation: {v: b.h5}}\n"
                  "train: {stages: [{at_step: 3, data: {train: [{path: a}]}}]}"),
      {"data.tokenizer: expected none", "data.packing: expected none", "data.train: expected none",
       "data.validation: expected none", "train.stages: [0].data: expected none"});
  test::expect_contains(problems_of("data: {task: {kind: stack, stack: {stacks: 0}}}"),
                        {"data.task.stack.stacks: expected a count above 0, got \"0\""});
  const Config c = task_config("run");
  EXPECT_TRUE(config::diff(c, config::load_string<Config>(config::print(c), "again")).empty());
}

}  // namespace
}  // namespace sluice
