// tests/trainer/sweep_run_test.cpp -- whole sweeps of tiny runs: tables, failures, kills.
#include <gtest/gtest.h>

#include "tests/support/tiny_sweep.h"
#include "trainer/sweep/plan.h"

namespace sluice {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

class SweepRunTest : public test::TinySweep {
 protected:
  // Without the columns that are times, and with paths from the sweep's folder on.
  Json without_times(const std::string& dir) const {
    Json j = result(dir);
    for (Json& row : j["rows"]) {
      row["values"].erase("tokens_per_second");
      for (Json& run : row["runs"])
        run = run.get<std::string>().substr((dir_ / dir).string().size());
    }
    return j;
  }
  // Children that have not called exec hold the sweep's lock too, until they are quite dead.
  static void wait_for_lock(const std::string& dir) {
    for (int ms = 0; ms < 10000; ++ms) {
      try {
        const RunLock free(dir);
        return;
      } catch (const Error&) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
    }
  }
  // The folder of a run that ended in this way: `event` is done or stop.
  void ended(const std::string& run, const Json& valid, const std::string& event = "done") const {
    const fs::path folder = dir_ / "sweep/runs" / run;
    fs::create_directories(folder);
    std::ofstream out(folder / "metrics.jsonl");
    const auto step = [&](double loss, int skipped) {
      out << Json{{"event", "train"}, {"loss", loss}, {"skipped", skipped}} << "\n";
    };
    step(5, 0);
    out << Json{{"event", "valid.v"}, {"loss", 7}, {"accuracy", 0}} << "\n";
    step(2, 0);
    step(9, 1);
    Json last = valid;
    last["event"] = "valid.v";
    out << last << "\n" << Json{{"event", event}, {"step", 8}} << "\n";
  }
  static Json row(const Json& sweep, const std::string& name) {
    for (const Json& r : sweep["rows"])
      if (r["variant"] == name) return r;
    return nullptr;
  }
};

const char* const kTwo =
    "variants: [{name: '3:1'}, {name: '1:1', set: {model.ratio: '1:1'}}], axes: {run.seed: [1, "
    "2]},\n"
    "parallel_runs: 2, train_ppl_steps: 4, table: [parameters, train_ppl, valid_ppl, "
    "tokens_per_second, kv_bytes_per_token_128k, decode_ms], decode_context_tokens: 700";

TEST_F(SweepRunTest, TheTableIsOfTheRuns) {
  EXPECT_EQ(sweep(sweep_file(kTwo)), ExitCode::done) << printed_;
  const Json s = result();
  ASSERT_EQ(s["rows"].size(), 2U);
  const Json r = row(s, "1:1");
  EXPECT_EQ(r["runs"],
            Json({dir_ / "sweep/runs/1-1-run.seed=1", dir_ / "sweep/runs/1-1-run.seed=2"}));
  // The same run by itself has the same losses.
  Config c = config::load<Config>(dir_ / "sweep/runs/1-1-run.seed=1/run.yaml", {"run.threads=1"});
  c.run.dir = dir_ / "alone";
  run_to_the_end(c);
  double loss = 0, valid = 0;
  std::ifstream in(c.run.dir + "/metrics.jsonl");
  for (std::string line; std::getline(in, line);) {
    const Json j = Json::parse(line);
    if (j["event"] == "train" && j["step"] > 4) loss += j["loss"].get<double>() / 4;
    if (j["event"] == "valid.v") valid = j["loss"];
  }
  const Json alone = Json::parse(read(dir_ / "sweep/sweep.json"));
  EXPECT_EQ(sweep(sweep_file(std::string("variants: [{name: '1:1', set: {model.ratio: '1:1'}}], "
                                         "train_ppl_steps: 4"),
                             "one")),
            ExitCode::done)
      << printed_;
  const Json one = row(result("one"), "1:1")["values"];
  EXPECT_DOUBLE_EQ(one["train_ppl"]["mean"].get<double>(), std::exp(loss));
  EXPECT_DOUBLE_EQ(one["valid_ppl.v"]["mean"].get<double>(), std::exp(valid));
  EXPECT_EQ(one["valid_ppl.v"]["spread"], nullptr);
  EXPECT_NE(read(dir_ / "one/table.md").find("1 seed: "), std::string::npos);
  // 2 of 4 layers are MLA with rows of 12 + 4; the others have [4, 8, 8] and 2*2*8 + 4*8 channels
  // of 3.
  EXPECT_DOUBLE_EQ(r["values"]["kv_bytes_per_token_128k"]["mean"].get<double>(),
                   4.0 * 2 * 16 + 4.0 * 2 * (4 * 64 + 64 * 3) / (128 << 10));
  EXPECT_GT(r["values"]["decode_ms"]["mean"].get<double>(), 0);
  EXPECT_GT(r["values"]["valid_ppl.v"]["spread"].get<double>(), 0);
  EXPECT_EQ(s["config_differences"]["1:1"]["model.ratio"], "\"1:1\"");
}

TEST_F(SweepRunTest, ARunThatFailsLeavesTheOthersAlone) {
  const std::string file = sweep_file(
      "variants: [{name: good}, {name: wild, set: {optim.lr: 1e30, train.nonfinite.stop_after: "
      "2}},\n"
      "{name: broken, set: {train.micro_batch_tokens: 100}}], parallel_runs: 3");
  EXPECT_EQ(sweep(file), ExitCode::error) << printed_;
  const Json s = result();
  EXPECT_EQ(s["rows"].size(), 1U);
  ASSERT_EQ(s["failed"].size(), 2U) << s;
  std::map<std::string, std::string> why;
  for (const Json& f : s["failed"]) why[f["run"]] = f["why"];
  EXPECT_EQ(why["wild"].find("not finite: "), 0U) << why["wild"];
  EXPECT_EQ(why["broken"].find("exit code 1: "), 0U) << why["broken"];
  EXPECT_NE(why["broken"].find("micro_batch_tokens"), std::string::npos) << why["broken"];
  // What ended by itself is not run again, in either way.
  const auto written = fs::last_write_time(dir_ / "sweep/runs/wild/metrics.jsonl");
  EXPECT_EQ(sweep(file), ExitCode::error) << printed_;
  EXPECT_EQ(fs::last_write_time(dir_ / "sweep/runs/wild/metrics.jsonl"), written);
  EXPECT_NE(printed_.find("good    step 8  loss"), std::string::npos) << printed_;
  EXPECT_NE(printed_.find("done before"), std::string::npos) << printed_;
  EXPECT_EQ(result()["failed"].size(), 2U);
}

TEST_F(SweepRunTest, KilledWithItsChildrenAndRestartedItHasTheSameTable) {
  EXPECT_EQ(sweep(sweep_file(kTwo, "straight")), ExitCode::done) << printed_;
  const std::string file = sweep_file(kTwo, "killed");
  fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    if (!freopen((dir_ / "killed.log").c_str(), "w", stdout)) _exit(99);
    // One run waits to be killed after a save in its middle.
    run_sweep({.file = file, .set = {}}, [](const std::string& config_file, int threads) {
      const Config c = config::load<Config>(config_file);
      if (c.run.name != "1-1-run.seed=1") train(config_file, threads);
      Trainer t(c);
      for (int i = 0; i < 3; ++i) t.train_step();
      t.save();
      for (;;) pause();
    });
    _exit(0);
  }
  const fs::path half = dir_ / "killed/runs/1-1-run.seed=1/checkpoints/step-00000003";
  for (int ms = 0; ms < 60000 && !fs::exists(half); ++ms)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  kill(child, SIGSTOP);
  std::istringstream children(
      read("/proc/" + std::to_string(child) + "/task/" + std::to_string(child) + "/children"));
  std::vector<pid_t> runs;
  for (pid_t p; children >> p;) runs.push_back(p);
  EXPECT_FALSE(runs.empty());
  for (const pid_t p : runs) kill(p, SIGKILL);
  kill(child, SIGKILL);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status)) << status;
  EXPECT_FALSE(fs::exists(dir_ / "killed/sweep.json"));
  wait_for_lock(dir_ / "killed");
  EXPECT_EQ(sweep(file), ExitCode::done) << printed_;
  Json a = without_times("straight"), b = without_times("killed");
  for (Json* j : {&a, &b})
    for (Json& r : (*j)["rows"]) r["values"].erase("decode_ms");
  EXPECT_EQ(a, b);
  EXPECT_NE(read(dir_ / "killed/runs/1-1-run.seed=1/log.txt").find("(bitwise)"), std::string::npos);
}

// SIGTERM to the sweep alone: the runs save, nothing is lost, and 75 asks for the same command.
TEST_F(SweepRunTest, ASignalReachesTheRuns) {
  const std::string file =
      sweep_file(std::string("set: {train.steps: 4000, checkpoint.every_steps: "
                             "4000, train.validate_every_steps: 4000, "
                             "optim.schedule.decay_steps: 2}"));
  fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    if (!freopen((dir_ / "sweep.log").c_str(), "w", stdout)) _exit(99);
    _exit(int(run_sweep({.file = file, .set = {}}, train)));
  }
  const fs::path metrics = dir_ / "sweep/runs/base/metrics.jsonl";
  for (int ms = 0; ms < 60000 && read(metrics).find("\"train\"") == std::string::npos; ++ms)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  kill(child, SIGTERM);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), int(ExitCode::requeue)) << read(dir_ / "sweep.log");
  EXPECT_TRUE(find_newest_valid(dir_ / "sweep/runs/base", nullptr));
  EXPECT_FALSE(fs::exists(dir_ / "sweep/table.md"));
}

TEST_F(SweepRunTest, ASweepThatChangedForRunsThatHaveBegunIsRefused) {
  EXPECT_EQ(sweep(sweep_file("variants: [{name: a}]")), ExitCode::done) << printed_;
  EXPECT_EQ(sweep(sweep_file("variants: [{name: a}, {name: b, set: {optim.lr: 1e-4}}]")),
            ExitCode::done)
      << printed_;
  sweep(sweep_file("variants: [{name: a, set: {optim.eps: 1e-9}}]"));
  EXPECT_NE(printed_.find("a: optim.eps was 1e-08, is 1e-09"), std::string::npos) << printed_;
  EXPECT_EQ(printed_.find("b: "), std::string::npos) << printed_;
}

TEST_F(SweepRunTest, ATaskHasItsAccuracyBesideChance) {
  EXPECT_EQ(sweep(sweep_file(
                "set: {data.tokenizer: tokenizer.json, data.train: [], data.validation: {}},\n"
                "axes: {data.task.kind: [palindrome, stack]}, table: [accuracy]")),
            ExitCode::done)
      << printed_;
  const Json values = row(result(), "base data.task.kind=palindrome")["values"];
  EXPECT_EQ(values["chance"]["mean"], 1.0 / 32);
  EXPECT_LT(values["accuracy.task"]["mean"].get<double>(), 0.5);
}

// sbatch, squeue and sluice are scripts: the first runs nothing, the last ends a run at once.
TEST_F(SweepRunTest, AnArrayJobIsWrittenSubmittedOnceAndCollected) {
  const auto script = [&](const std::string& name, const std::string& text) {
    std::ofstream(dir_ / name) << "#!/bin/bash\n" << text << "\n";
    fs::permissions(dir_ / name, fs::perms::owner_all);
  };
  const std::string d = dir_.string() + "/";
  script("sbatch", "echo \"$@\" >>" + d + "submitted; echo 77");
  script("squeue", "[ -e " + d + "ended ] || echo \"$@\"");
  script("sluice",
         "echo \"$@\"; printf '%s\\n' '{\"event\":\"valid.v\",\"step\":8,\"loss\":1}' "
         "'{\"event\":\"done\",\"step\":8}' >$(dirname $2)/metrics.jsonl");
  const std::string path = getenv("PATH");
  setenv("PATH", (d + ":" + path).c_str(), 1);
  const std::string file = sweep_file(
      "axes: {run.seed: [1, 2]}, parallel_runs: slurm, slurm: ['--time=1'], table: [parameters]");
  EXPECT_EQ(sweep(file), ExitCode::requeue) << printed_;
  EXPECT_EQ(sweep(file), ExitCode::requeue) << printed_;
  EXPECT_NE(printed_.find("job 77 is queued or runs"), std::string::npos) << printed_;
  EXPECT_EQ(read(d + "submitted"), "--parsable " + d + "sweep/slurm/array.sh\n");
  const std::string array = read(d + "sweep/slurm/array.sh");
  EXPECT_NE(array.find("#SBATCH --array=0-1\n"), std::string::npos) << array;
  EXPECT_NE(array.find("#SBATCH --time=1\n"), std::string::npos) << array;
  EXPECT_EQ(system(("SLURM_ARRAY_TASK_ID=1 bash " + d + "sweep/slurm/array.sh").c_str()), 0);
  EXPECT_EQ(read(d + "sweep/runs/base-run.seed=2/log.txt"),
            "train " + d + "sweep/runs/base-run.seed=2/run.yaml --set run.threads=1\n");
  std::ofstream(d + "ended");
  EXPECT_EQ(sweep(file), ExitCode::requeue) << printed_;
  EXPECT_EQ(read(d + "sweep/slurm/tasks-2.txt"), d + "sweep/runs/base-run.seed=1\n");
  EXPECT_EQ(system(("SLURM_ARRAY_TASK_ID=0 bash " + d + "sweep/slurm/array.sh").c_str()), 0);
  EXPECT_EQ(sweep(file), ExitCode::done) << printed_;
  EXPECT_EQ(row(result(), "base")["runs"].size(), 2U);
  setenv("PATH", path.c_str(), 1);
}

TEST_F(SweepRunTest, EachRowKeepsItsBestSetting) {
  EXPECT_EQ(sweep(sweep_file("tune: {optim.lr: [1e-8, 2e-3]}")), ExitCode::done) << printed_;
  EXPECT_EQ(row(result(), "base")["tuned"], "optim.lr=2e-3");
  EXPECT_NE(read(dir_ / "sweep/table.md").find("optim.lr=2e-3"), std::string::npos);
}

TEST_F(SweepRunTest, ALadderHasItsPowerLaw) {
  EXPECT_EQ(sweep(sweep_file(
                "ladder: [{name: s, set: {model.hidden_size: 8, train.steps: 4}}, {name: m, set: "
                "{model.hidden_size: 16}}, {name: l}], train_ppl_steps: 2")),
            ExitCode::done)
      << printed_;
  const Json s = result();
  ASSERT_EQ(s["fits"].size(), 1U);
  const Json fit = s["fits"][0];
  ASSERT_EQ(fit["points"].size(), 3U);
  const Json last = row(s, "base l")["values"];
  EXPECT_DOUBLE_EQ(std::exp(fit["points"][2][1].get<double>()),
                   last["valid_ppl.v"]["mean"].get<double>());
}

// A folder that another process holds leaves the others alone, and its run waits. SIGCHLD ignored
// by the caller changes nothing.
TEST_F(SweepRunTest, ALockedRunWaitsForItsTurn) {
  const std::string file = sweep_file("variants: [{name: a}, {name: b, set: {optim.lr: 1e-4}}]");
  const std::string held = dir_ / "sweep/runs/a", other = dir_ / "sweep/runs/b/metrics.jsonl";
  fflush(nullptr);
  const pid_t holder = fork();
  if (holder == 0) {
    const RunLock lock(held);
    for (int ms = 0; ms < 30000 && read(other).find("\"done\"") == std::string::npos; ++ms)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    _exit(0);
  }
  while (!fs::exists(held + "/lock")) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  const auto before = signal(SIGCHLD, SIG_IGN);
  EXPECT_EQ(sweep(file), ExitCode::done) << printed_;
  signal(SIGCHLD, before);
  EXPECT_NE(printed_.find("1/2  b"), std::string::npos) << printed_;
  EXPECT_NE(printed_.find("2/2  a"), std::string::npos) << printed_;
  EXPECT_EQ(result()["rows"].size(), 2U);
  waitpid(holder, nullptr, 0);
}

TEST_F(SweepRunTest, ARunIsDoneIfItsMetricsSaySo) {
  ::testing::internal::CaptureStdout();
  const ExitCode code =
      run_sweep({.file = sweep_file(""), .set = {}}, [](const std::string&, int) { _exit(0); });
  const std::string printed = ::testing::internal::GetCapturedStdout();
  EXPECT_EQ(code, ExitCode::error) << printed;
  EXPECT_NE(printed.find("metrics.jsonl does not say that it is done"), std::string::npos)
      << printed;
}

// A squeue that fails for another reason than the job's absence does not submit it twice.
TEST_F(SweepRunTest, AFailingSqueueIsNoAnswer) {
  const auto script = [&](const std::string& name, const std::string& text) {
    std::ofstream(dir_ / name) << "#!/bin/bash\n" << text << "\n";
    fs::permissions(dir_ / name, fs::perms::owner_all);
  };
  const std::string d = dir_.string() + "/", path = getenv("PATH");
  script("sbatch", "echo again >>" + d + "submitted; echo '77;cluster'");
  script("squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1");
  setenv("PATH", (d + ":" + path).c_str(), 1);
  const std::string file = sweep_file("parallel_runs: slurm");
  EXPECT_EQ(sweep(file), ExitCode::requeue) << printed_;
  EXPECT_EQ(read(d + "sweep/slurm/job"), "77");
  EXPECT_EQ(sweep(file), ExitCode::requeue) << printed_;
  EXPECT_EQ(read(d + "submitted"), "again\n");
  EXPECT_NE(printed_.find("Unable to contact slurm controller"), std::string::npos) << printed_;
  script("squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1");
  EXPECT_EQ(sweep(file), ExitCode::requeue) << printed_;
  EXPECT_EQ(read(d + "submitted"), "again\nagain\n");
  setenv("PATH", path.c_str(), 1);
}

TEST_F(SweepRunTest, AfterAFailedRunTheOthersBegin) {
  EXPECT_EQ(sweep(sweep_file("variants: [{name: broken, set: {train.micro_batch_tokens: 100}}, "
                             "{name: good}], parallel_runs: 1")),
            ExitCode::error)
      << printed_;
  EXPECT_EQ(result()["rows"].size(), 1U) << printed_;
}

TEST_F(SweepRunTest, NoMoreRunsAtOnceThanAsked) {
  const std::string file = sweep_file("axes: {run.seed: [1, 2, 3]}, parallel_runs: 1");
  ::testing::internal::CaptureStdout();
  run_sweep({.file = file, .set = {}}, [&](const std::string& run, int) {
    const bool alone = fs::create_directory(dir_ / "one_runs");
    std::ofstream(dir_ / "ran", std::ios::app) << (alone ? "alone\n" : "beside " + run + "\n");
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    fs::remove(dir_ / "one_runs");
    _exit(1);
  });
  ::testing::internal::GetCapturedStdout();
  EXPECT_EQ(read(dir_ / "ran"), "alone\nalone\nalone\n");
}

// Perplexities: of s 10, 12 and 14, 15; of l 20, 22 and 18, 22, which is no difference.
TEST_F(SweepRunTest, DifferencesAreWithinAGroupAndFitsOfItsRows) {
  const auto both = [&](const std::string& name, double first, double second, double accuracy) {
    ended(name + "-run.seed=1", {{"loss", std::log(first)}, {"accuracy", accuracy}});
    ended(name + "-run.seed=2", {{"loss", std::log(second)}, {"accuracy", accuracy + 0.1}});
  };
  both("a-s", 10, 12, 0);
  both("b-s", 14, 15, 0);
  both("a-l", 20, 22, 0.2);
  both("b-l", 18, 22, 0.3);
  const std::string text =
      "variants: [{name: a}, {name: b, set: {model.ratio: '1:1'}}], axes: {run.seed: [1, 2]},\n"
      "ladder: [{name: s, set: {model.hidden_size: 8}}, {name: l}], compute_unit: pflops_days,\n"
      "train_ppl_steps: 1, table: [flops_per_token, train_ppl, valid_ppl, accuracy, "
      "kv_bytes_per_token_1m]";
  const std::string file = sweep_file(text);
  EXPECT_EQ(sweep(file), ExitCode::done) << printed_;
  const Json s = result();
  const auto ns = [](const Json& j, const std::string& name, const std::string& column) {
    return row(j, name)["values"][column]["ns"].get<bool>();
  };
  EXPECT_FALSE(ns(s, "a s", "valid_ppl.v"));
  EXPECT_FALSE(ns(s, "b s", "valid_ppl.v"));
  EXPECT_TRUE(ns(s, "a l", "valid_ppl.v"));
  EXPECT_FALSE(ns(s, "b l", "valid_ppl.v")) << "the best";
  EXPECT_TRUE(ns(s, "a l", "accuracy.v"));
  EXPECT_FALSE(ns(s, "b l", "accuracy.v")) << "the best";
  const std::string table = read(dir_ / "sweep/table.md");
  EXPECT_NE(table.find("21.000 ± 1.000 n.s. |"), std::string::npos) << table;
  EXPECT_NE(table.find("over 2 seeds"), std::string::npos) << table;
  // The last validation, and the last step that was not skipped.
  const Json values = row(s, "b l")["values"];
  EXPECT_DOUBLE_EQ(values["valid_ppl.v"]["mean"].get<double>(), 20);
  EXPECT_DOUBLE_EQ(values["train_ppl"]["mean"].get<double>(), std::exp(2));
  // As in TheTableIsOfTheRuns, the states over more tokens.
  EXPECT_DOUBLE_EQ(values["kv_bytes_per_token_1m"]["mean"].get<double>(),
                   4.0 * 2 * 16 + 4.0 * 2 * (4 * 64 + 64 * 3) / (1 << 20));
  const double flops = plan_sweep(file, {}).rows[0].model.flops_per_token;
  EXPECT_EQ(row(s, "a s")["values"]["flops_per_token"]["mean"], flops);
  ASSERT_EQ(s["fits"].size(), 2U);
  EXPECT_EQ(s["fits"][0]["name"], "a");
  const Json point = s["fits"][0]["points"][0];
  EXPECT_DOUBLE_EQ(point[0].get<double>(), flops * 8 * (96 * 3) / (1e15 * 24 * 60 * 60));
  EXPECT_DOUBLE_EQ(point[1].get<double>(), (std::log(10) + std::log(12)) / 2);
  EXPECT_EQ(sweep(sweep_file(text + ", baseline: a")), ExitCode::done) << printed_;
  EXPECT_FALSE(ns(result(), "a l", "valid_ppl.v")) << "the baseline";
  EXPECT_TRUE(ns(result(), "b l", "valid_ppl.v"));
}

TEST_F(SweepRunTest, ASettingWhoseRunsAllEndedIsPreferred) {
  ended("base-optim.lr=1e-3-run.seed=1", {{"loss", 3}});
  ended("base-optim.lr=1e-3-run.seed=2", {{"loss", 3}});
  ended("base-optim.lr=2e-3-run.seed=1", {{"loss", 1}});
  ended("base-optim.lr=2e-3-run.seed=2", {{"loss", 1}}, "stop");
  EXPECT_EQ(sweep(sweep_file("tune: {optim.lr: [1e-3, 2e-3]}, axes: {run.seed: [1, 2]}")),
            ExitCode::error)
      << printed_;
  EXPECT_EQ(row(result(), "base")["tuned"], "optim.lr=1e-3");
}

}  // namespace
}  // namespace sluice
