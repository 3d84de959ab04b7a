// tests/trainer/stop_test.cpp -- signals, steps that are not finite, spikes: what they change, how
// the process ends, and that the same command goes on.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/support/tiny_run.h"
#include "trainer/loop/compare.h"
#include "trainer/loop/spikes.h"

namespace sluice {
namespace {

class Stop : public test::TinyRun {
 protected:
  // The same run as config("straight"), with many steps that a signal can meet.
  Config long_run(const std::string& run) const {
    Config c = config(run);
    c.train.steps = 48;
    return c;
  }
  int stopped_by(const Config& c, int signal) const {
    return run_child(c, [&](pid_t child) {
      wait_for_step(c, 7);
      kill(child, signal);
    });
  }
  static bool has_ended(pid_t child) {  // and is still there for waitpid()
    siginfo_t info{};
    return waitid(P_PID, id_t(child), &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid != 0;
  }
  static std::vector<nlohmann::json> events(const Config& c, const std::string& event) {
    std::vector<nlohmann::json> list;
    std::istringstream lines(read(c.run.dir + "/metrics.jsonl"));
    for (std::string line; std::getline(lines, line);) {
      const auto j = nlohmann::json::parse(line);
      if (j["event"] == event) list.push_back(j);
    }
    return list;
  }
  static std::string bits(const ParamStore& params) {
    std::string all;
    for (const Shard& s : params.shards())
      all.append(reinterpret_cast<const char*>(s.master.data), size_t(s.master.bytes()));
    return all;
  }
  // The loop with the embedding of one rare token NaN in every step and right in between, since a
  // state with NaN is not saved.
  static ExitCode poisoned_run(Trainer& t) {
    const Shard& s = t.params().shards()[size_t(t.params().find("embedding.weight").index)];
    const int64_t D = t.params().spec(s.id).shape[1];
    float& element = s.master.as<float>()[int64_t(kRareToken) * D];
    while (t.step() < 48) {
      const float was = element;
      element = NAN;
      t.train_step();
      element = was;
      if (t.step() % 7 == 0 || t.step() == 48) t.save();
    }
    return ExitCode::done;
  }
};

TEST_F(Stop, SignalsFinishTheStepSaveAndSayHowToGoOn) {
  const Config straight = long_run("straight");
  run_to_the_end(straight);
  const std::pair<int, ExitCode> cases[] = {
      {SIGTERM, ExitCode::requeue}, {SIGUSR1, ExitCode::requeue}, {SIGINT, ExitCode::interrupted}};
  for (const auto& [signal, code] : cases) {
    const Config c = long_run(signal_name(signal));
    const int status = stopped_by(c, signal);
    ASSERT_TRUE(WIFEXITED(status)) << status;
    EXPECT_EQ(WEXITSTATUS(status), int(code));
    const auto newest = find_newest_valid(c.run.dir, nullptr);
    ASSERT_TRUE(newest);
    EXPECT_NE(log(c).find(cat(signal_name(signal), ": stopped after step ", newest->step,
                              ", which is saved; the same command goes on (exit code ", int(code))),
              std::string::npos)
        << log(c);
    ASSERT_EQ(events(c, "signal").size(), 1u);
    EXPECT_EQ(events(c, "signal")[0]["signal"], signal_name(signal));
    run_to_the_end(c);
    for (const std::string& d : compare_runs(straight.run.dir, c.run.dir)) ADD_FAILURE() << d;
  }
}

TEST_F(Stop, ASecondInterruptEndsAtOnceAndBreaksNothing) {
  Config straight = config("straight"), c = config("run");
  for (Config* x :
       {&straight, &c}) {  // steps so long that a second signal still meets the first one
    x->train.steps = 6;
    x->train.batch_tokens = 96 * 24;
    x->checkpoint.every_steps = 1;
    x->data.validation.clear();
  }
  run_to_the_end(straight);
  bool at_once = false;  // not after the save, when signals have their default effect again
  for (int64_t from = 1; from < 5 && !at_once; ++from) {  // the machine may be slower than the run
    const int status = run_child(c, [&](pid_t child) {
      wait_for_step(c, from);
      kill(child, SIGINT);
      while (!has_ended(child)) kill(child, SIGINT);  // the first two may have become one
    });
    at_once = WIFSIGNALED(status) && WTERMSIG(status) == SIGINT &&
              log(c).find("SIGINT: stopped") == std::string::npos;
  }
  EXPECT_TRUE(at_once) << log(c);
  std::vector<std::string> problems;
  EXPECT_TRUE(find_newest_valid(c.run.dir, &problems));
  for (const std::string& p : problems) ADD_FAILURE() << p;
  run_to_the_end(c);
  for (const std::string& d : compare_runs(straight.run.dir, c.run.dir)) ADD_FAILURE() << d;
}

// Signals that wait are delivered by their numbers, not in the order in which they were sent.
void wait_for_delivery(pid_t child) {
  for (;;) {
    std::ifstream status("/proc/" + std::to_string(child) + "/status");
    std::string line;
    while (std::getline(status, line) && line.rfind("ShdPnd:", 0) != 0) {
    }
    if (line.find_first_of("123456789abcdef", std::strlen("ShdPnd:")) == std::string::npos) return;
    usleep(1000);
  }
}

TEST_F(Stop, MoreTermSignalsDoNotLoseTheSave) {
  const Config c = long_run("run");
  const int status = run_child(c, [&](pid_t child) {
    wait_for_step(c, 7);
    for (const int s : {SIGUSR1, SIGTERM, SIGTERM, SIGINT}) {
      kill(child, s);
      wait_for_delivery(child);
    }
  });
  ASSERT_TRUE(WIFEXITED(status)) << status;
  EXPECT_EQ(WEXITSTATUS(status), 75);
}

TEST_F(Stop, AStepThatIsNotFiniteChangesNothing) {
  ::testing::internal::CaptureStdout();
  Config c = config("run");
  Trainer t(c), other(config("other"));
  for (int i = 0; i < 3; ++i) t.train_step();
  t.save();  // moments too
  const std::string weights = bits(t.params());
  const CheckpointRef saved = *find_newest_valid(c.run.dir, nullptr);
  const std::string moments = read(file_of(saved, Part::optimizer));

  float& element = t.params()
                       .shards()[size_t(t.params().find("layers.1.ffn.down_proj").index)]
                       .master.as<float>()[5];
  const float was = element;
  element = INFINITY;
  t.train_step();
  element = was;
  EXPECT_EQ(t.step(), 4);  // data and schedule go on
  EXPECT_TRUE(bits(t.params()) == weights);
  t.save();
  const CheckpointRef after = *find_newest_valid(c.run.dir, nullptr);
  EXPECT_EQ(after.step, 4);
  EXPECT_TRUE(read(file_of(after, Part::optimizer)) == moments);
  const CheckpointMeta meta = load_meta(after);
  EXPECT_EQ(meta.integers.at("optimizer.updates"), 3);  // Adam's bias correction
  EXPECT_EQ(meta.integers.at("nonfinite_in_a_row"), 1);
  t.train_step();
  EXPECT_FALSE(bits(t.params()) == weights);
  const std::string out = ::testing::internal::GetCapturedStdout();
  EXPECT_NE(out.find("SKIPPED  step 4: not finite: micro-batch 0: "), std::string::npos) << out;
  ASSERT_EQ(events(c, "skip").size(), 1u);
  const auto steps = events(c, "train");
  EXPECT_EQ(steps[3]["skipped"], 1);
  EXPECT_EQ(steps[4]["skipped"], 0);
  EXPECT_EQ(steps[4]["skipped_total"], 1);
}

// The steps that meet the rare token are skipped, the others train. The bits are the same when the
// run is killed in between.
TEST_F(Stop, SkippedStepsResumeWithTheSameBits) {
  const Config a = long_run("straight"), b = long_run("killed");
  run_to_the_end(a, poisoned_run);
  const size_t skips = events(a, "skip").size();
  EXPECT_GE(skips, 1u);
  EXPECT_LT(skips, 20u);
  EXPECT_NE(log(a).find("embedding"), std::string::npos) << log(a);
  run_killed_after(28, b, poisoned_run);
  for (const std::string& d : compare_runs(a.run.dir, b.run.dir)) ADD_FAILURE() << d;
  EXPECT_EQ(events(b, "skip").size(), skips);
}

TEST_F(Stop, AfterSoManyInARowTheRunStopsAndNamesTheOp) {
  const Training poisoned = [](Trainer& t) {
    t.params()
        .shards()[size_t(t.params().find("layers.1.ffn.down_proj").index)]
        .master.as<float>()[3] = NAN;
    return t.run();
  };
  Config c = config("run");
  c.train.nonfinite.stop_after = 3;
  const int status = run_child(c, {}, poisoned);
  ASSERT_TRUE(WIFEXITED(status)) << status;
  EXPECT_EQ(WEXITSTATUS(status), 5);
  const std::string out = log(c);
  EXPECT_NE(out.find("STOPPED  3 of 24: steps 1 to 3 were not finite, the model is as it was after "
                     "step 0"),
            std::string::npos)
      << out;
  EXPECT_NE(out.find("no checkpoint was written (exit code 5)"), std::string::npos) << out;
  EXPECT_NE(out.find("layers.1"), std::string::npos) << out;
  EXPECT_FALSE(find_newest_valid(c.run.dir, nullptr));
  c.run.dir = dir_ / "at once";
  c.train.nonfinite.skip = false;
  EXPECT_EQ(WEXITSTATUS(run_child(c, {}, poisoned)), 5);
  EXPECT_EQ(events(c, "train").size(), 1u);
}

TEST(Spikes, AreJudgedAgainstTheFiniteStepsBefore) {
  SpikeDetector d({.skip = false, .sigmas = 6, .window_steps = 4});
  for (const double x : {1.0, 3.0, 1.0}) EXPECT_EQ(d.judge(x, 1), "");
  EXPECT_EQ(d.judge(NAN, 1), "");
  EXPECT_EQ(d.judge(1, INFINITY), "");
  EXPECT_EQ(d.judge(3, 3), "");  // the window is full now: mean 2, deviation 1
  std::map<std::string, double> saved;
  d.save(saved);
  EXPECT_EQ(d.judge(8, 2), "");
  d.load(saved);
  EXPECT_NE(d.judge(8.001, 2).find("loss 8.001, the 4 steps before: mean 2, deviation 1"),
            std::string::npos);
  d.load(saved);
  EXPECT_NE(d.judge(2, 100).find("gradient norm 100"), std::string::npos);
  d.load(saved);  // a level that lasts becomes the normal one
  EXPECT_NE(d.judge(50, 1), "");
  for (int i = 0; i < 4; ++i) d.judge(50, 1);
  EXPECT_EQ(d.judge(50, 1), "");
}

TEST_F(Stop, SkippedSpikesResumeWithTheSameBits) {
  Config a = config("straight"), b = config("killed");
  for (Config* c : {&a, &b})  // so tight that many steps count as spikes
    c->train.spike = {.skip = true, .sigmas = 0.2, .window_steps = 8};
  run_to_the_end(a);
  size_t told_by_the_window = 0;  // one that is empty at step 7 judges nothing before step 16
  for (const auto& e : events(a, "skip")) told_by_the_window += e["step"] > 7 && e["step"] < 16;
  EXPECT_GE(told_by_the_window, 1u) << log(a);
  EXPECT_NE(log(a).find(": spike: "), std::string::npos) << log(a);
  run_killed_after(7, b);
  for (const std::string& d : compare_runs(a.run.dir, b.run.dir)) ADD_FAILURE() << d;
}

}  // namespace
}  // namespace sluice
