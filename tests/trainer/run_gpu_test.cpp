// tests/trainer/run_gpu_test.cpp -- whole runs on CUDA, whose numbers the host reads a step late:
// the same bits however they are run, stopped or resumed, and the memory that was planned.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "tests/support/tiny_run.h"
#include "trainer/loop/compare.h"

namespace sluice {
namespace {

// A GPU is for the children: a process that has used CUDA cannot fork one that does.
class RunGpu : public test::TinyRun {
 protected:
  void SetUp() override {
    const pid_t child = fork();
    if (child == 0) {
      int count = 0;
      _exit(cudaGetDeviceCount(&count) == cudaSuccess && count > 0 ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    if (status != 0) GTEST_SKIP() << "NOT TESTED, no GPU";
  }

  Config gpu_config(const std::string& run, const std::string& ratio = "2:1") const {
    Config c = config(run, 2);
    c.run.device = "cuda";
    LmConfig& m = c.model;
    m.ratio = ratio;
    m.hidden_size = 128;
    m.intermediate_size = 256;
    m.num_hidden_layers = 3;
    m.kda.num_heads = 2;
    m.kda.num_value_heads = 2;
    m.kda.head_dim = 128;
    m.mla.num_attention_heads = 2;
    m.mla.kv_lora_rank = 64;
    m.mla.qk_nope_head_dim = 32;
    m.mla.qk_rope_head_dim = 16;
    m.mla.v_head_dim = 32;
    return c;
  }
  Config muon_config(const std::string& run) const {
    Config c = gpu_config(run);
    c.optim.kind = "muon";
    c.optim.qk_clip_threshold = 0.01;  // that every step clips
    return c;
  }
  Config moe_config(const std::string& run) const {
    Config c = gpu_config(run);
    c.model.ffn = "moe";
    c.model.moe = {.num_experts = 8, .num_experts_per_token = 3, .moe_intermediate_size = 48};
    return c;
  }
  Config config_of(const std::string& kind, const std::string& run) const {
    const std::string name = kind + "_" + run;
    return kind == "muon" ? muon_config(name) : kind == "moe" ? moe_config(name) : gpu_config(name);
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
  static void set_element(Trainer& t, const std::string& name, int64_t i, float value) {
    const Shard& s = t.params().shards()[size_t(t.params().find(name).index)];
    copy(make_tensor(&value, DType::f32, Device::cpu, {1}), s.master.rows(i, 1));
    t.params().refresh({.device = Device::cuda});
  }
  void expect_same(const Config& a, const Config& b) const {
    for (const std::string& d : compare_runs(a.run.dir, b.run.dir)) ADD_FAILURE() << d;
  }
  static ExitCode settled_each_step(Trainer& t) {
    while (t.step() < 24) {
      t.train_step();
      if (t.step() % 7 == 0 || t.step() == 24) t.save();
    }
    return ExitCode::done;
  }
  // `sluice plan`, what the trainer planned, what is allocated on the device, and what was used.
  static bool took(int64_t planned, Trainer& t) {
    std::printf("planned %lld, by the trainer %lld, allocated %lld; step %lld, used %lld\n",
                static_cast<long long>(planned), static_cast<long long>(t.memory().total()),
                static_cast<long long>(allocated_bytes(Device::cuda)),
                static_cast<long long>(t.memory().step), static_cast<long long>(t.arena_peak()));
    fflush(stdout);
    return t.memory().total() == planned && allocated_bytes(Device::cuda) == planned &&
           t.arena_peak() == t.memory().step;
  }
  static ExitCode eager(Trainer& t) {
    t.without_graphs();
    return t.run();
  }
};

TEST_F(RunGpu, TakesWhatIsPlannedAndGivesTheSameBitsWithoutGraphsAndReadAtOnce) {
  for (const std::string kind : {"adamw", "muon", "moe"}) {
    Config late = config_of(kind, "late"), ops = config_of(kind, "ops"),
           settled = config_of(kind, "settled");
    for (Config* c : {&late, &ops, &settled}) c->data.validation.clear();
    run_to_the_end(late, [planned = plan_memory(late).total()](Trainer& t) {
      const ExitCode code = t.run();
      return took(planned, t) ? code : ExitCode::config;
    });
    run_to_the_end(ops, eager);
    expect_same(late, ops);
    if (kind == "adamw") {
      run_to_the_end(settled, settled_each_step);
      expect_same(late, settled);
    }
    const auto steps = events(late, "train");
    ASSERT_EQ(steps.size(), 24u);
    EXPECT_LT(steps[23]["loss"].get<double>(), steps[0]["loss"].get<double>());
    if (kind == "muon") {
      EXPECT_EQ(steps[5]["qk_clipped_heads"], 2) << steps[5];
    }
  }
}

// In the host's memory, in graphs and with checkpoints: what lies where changes no bit, and the
// device has so much less.
TEST_F(RunGpu, OffloadedStatesGiveTheSameBits) {
  for (const std::string kind : {"adamw", "muon"}) {
    Config here = config_of(kind, "here"), host = config_of(kind, "host");
    here.optim.state_dtype = host.optim.state_dtype = "bf16";
    host.optim.offload = "host";
    run_to_the_end(here);
    const MemoryPlan plan = plan_memory(host);
    EXPECT_EQ(plan.total() + plan.host_moments, plan_memory(here).total());
    run_killed_after(14, host, [planned = plan.total()](Trainer& t) {
      const ExitCode code = t.run();
      return took(planned, t) ? code : ExitCode::config;
    });
    expect_same(here, host);
  }
}

TEST_F(RunGpu, KilledOrStoppedAndResumedGivesTheSameBits) {
  Config straight = gpu_config("straight"), killed = gpu_config("killed"),
         stopped = gpu_config("stopped");
  for (Config* c : {&straight, &killed, &stopped}) c->train.steps = 100;
  run_to_the_end(straight);
  run_killed_after(14, killed);
  EXPECT_NE(log(killed).find("(bitwise)"), std::string::npos) << log(killed);
  expect_same(straight, killed);
  const int status = run_child(stopped, [&](pid_t child) {
    wait_for_step(stopped, 7);
    kill(child, SIGTERM);
  });
  ASSERT_TRUE(WIFEXITED(status)) << status;
  EXPECT_EQ(WEXITSTATUS(status), int(ExitCode::requeue)) << log(stopped);
  EXPECT_NE(log(stopped).find("which is saved"), std::string::npos) << log(stopped);
  run_to_the_end(stopped);
  expect_same(straight, stopped);
}

// A NaN in the row of one rare token: only steps that meet it are skipped, which the GPU decides,
// and the run goes on with the same bits however late the host hears of it.
TEST_F(RunGpu, StepsThatAreNotFiniteAreSkipped) {
  const Training late = [](Trainer& t) {
    set_element(t, "embedding.weight", int64_t(kRareToken) * 128, NAN);
    return t.run();
  };
  const Training at_once = [](Trainer& t) {
    set_element(t, "embedding.weight", int64_t(kRareToken) * 128, NAN);
    while (t.step() < 24) t.train_step();
    return ExitCode::done;
  };
  Config a = gpu_config("late"), b = gpu_config("at_once"), waits = gpu_config("waits");
  for (Config* c : {&a, &b, &waits}) {
    c->data.validation.clear();
    c->checkpoint.every_steps = 1000;  // a state with NaN is not saved: the end of a run says so
  }
  waits.train.spike.skip = true;  // nothing is a spike, but the host is asked
  waits.train.spike.sigmas = 1e6;
  run_child(a, {}, late);
  run_child(b, {}, at_once);
  run_child(waits, {}, late);
  const auto steps = events(a, "train");
  ASSERT_EQ(steps.size(), 24u) << log(a);
  size_t skipped = 0;
  for (size_t i = 0; i < 24; ++i) {
    for (const Config& c : {b, waits}) {
      const auto other = events(c, "train");
      ASSERT_EQ(other.size(), 24u) << log(c);
      for (const char* key : {"loss", "grad_norm", "skipped", "skipped_total", "lr"})
        EXPECT_EQ(steps[i][key], other[i][key])
            << key << " of step " << i + 1 << " of " << c.run.dir;
    }
    skipped += steps[i]["skipped"] == 1;
  }
  EXPECT_GE(skipped, 1u);
  EXPECT_LT(skipped, 12u);
  EXPECT_EQ(events(a, "skip").size(), skipped);
  EXPECT_NE(log(a).find(": not finite: micro-batch "), std::string::npos) << log(a);
  EXPECT_NE(log(a).find("embedding"), std::string::npos) << log(a);
}

TEST_F(RunGpu, AfterSoManyInARowTheRunStops) {
  const Training poisoned = [](Trainer& t) {
    set_element(t, "layers.1.ffn.down_proj", 3, NAN);
    return t.run();
  };
  Config c = gpu_config("run");
  c.train.nonfinite.stop_after = 3;
  const int status = run_child(c, {}, poisoned);
  ASSERT_TRUE(WIFEXITED(status)) << status;
  EXPECT_EQ(WEXITSTATUS(status), int(ExitCode::nonfinite));
  EXPECT_NE(log(c).find("STOPPED  3 of 24: steps 1 to 3 were not finite, the model is as it was "
                        "after step 0"),
            std::string::npos)
      << log(c);
  EXPECT_NE(log(c).find("layers.1"), std::string::npos) << log(c);
  EXPECT_EQ(events(c, "train").size(), 3u);
  c.run.dir = dir_ / "at_once";
  c.train.nonfinite.skip = false;
  EXPECT_EQ(WEXITSTATUS(run_child(c, {}, poisoned)), int(ExitCode::nonfinite));
  EXPECT_EQ(events(c, "train").size(), 1u);
}

}  // namespace
}  // namespace sluice
