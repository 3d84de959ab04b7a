// trainer/loop/config.h -- the whole config of `sluice train`, one section a folder.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "data/loader/config.h"
#include "kernels/base/check.h"
#include "model/lm/config.h"
#include "optim/config.h"
#include "trainer/parallel/config.h"

namespace sluice {

// Where a new run starts from, instead of random weights.
struct InitConfig {
  std::string from;              // a run's folder (its newest checkpoint) or one checkpoint's
  std::string load = "weights";  // weights: at step 0, new optimizer; all: goes on where it was

  template <class V>
  void visit(V& v) {
    v("from", from, "a run's folder or a checkpoint's",
      [](const std::string& s) { return !s.empty(); });
    v("load", load, "weights or all",
      [](const std::string& s) { return s == "weights" || s == "all"; });
  }
};

struct RunConfig {
  std::string name = "run";
  std::string dir = "runs/run";
  int64_t seed = 1;                // initial values and sampling
  std::string device = "auto";     // auto | cpu | cuda
  std::optional<int64_t> threads;  // null: one a core
  // strict: the same run gives the same bits. fast: a GPU may add in any order where that is faster
  std::string determinism = "strict";
  std::optional<InitConfig> init;  // read while the run has no checkpoint of its own

  template <class V>
  void visit(V& v) {
    auto text = [](const std::string& s) { return !s.empty(); };
    v("name", name, "a name", text);
    v("dir", dir, "a folder", text);
    v("seed", seed, "a number of at least 0", [](int64_t x) { return x >= 0; });
    v("device", device, "auto (for now: cpu), cpu or cuda",
      [](const std::string& s) { return s == "auto" || s == "cpu" || s == "cuda"; });
    v("threads", threads, "null (one a core) or a count above 0",
      [](const auto& x) { return !x || *x > 0; });
    v("determinism", determinism, "strict or fast",
      [](const std::string& s) { return s == "strict" || s == "fast"; });
    v.optional_section("init", init);
  }
  std::vector<std::pair<std::string, std::string>> problems() const {
    if (!init || !init->from.empty()) return {};
    return {{"init", "expected {from: RUN_OR_CHECKPOINT}, which is missing"}};
  }
};

// A step whose loss or gradients are not finite changes nothing, if it may be skipped.
struct NonfiniteConfig {
  bool skip = true;         // false: the first one stops the run
  int64_t stop_after = 10;  // of them in a row

  template <class V>
  void visit(V& v) {
    v("skip", skip, "true or false", [](bool) { return true; });
    v("stop_after", stop_after, "a count above 0", [](int64_t x) { return x > 0; });
  }
};

// A step is a spike if its loss or its gradient norm is more than `sigmas` standard deviations
// above the mean of the `window_steps` finite steps before it. Every spike is reported.
struct SpikeConfig {
  bool skip = false;  // true: it changes nothing, as if it were not finite
  double sigmas = 6;
  int64_t window_steps = 128;

  template <class V>
  void visit(V& v) {
    v("skip", skip, "true or false", [](bool) { return true; });
    v("sigmas", sigmas, "a number above 0", [](double x) { return x > 0; });
    v("window_steps", window_steps, "a count above 1", [](int64_t x) { return x > 1; });
  }
};

// What a stage reads from its first step on. Left out: what came before.
struct StageData {
  std::vector<DataSource> train;
  std::map<std::string, std::string> validation;

  template <class V>
  void visit(V& v) {
    v.list("train", train, "a list of {path, weight, max_epochs}");
    v.map("validation", validation, "names, each with a token shard");
  }
};

// The keys of optim.schedule and a peak of its own. Its steps count from the stage's first one to
// the next stage with a schedule, or the end.
struct StageSchedule : ScheduleConfig {
  std::optional<double> lr;  // null: as before

  StageSchedule() { warmup_steps = 0; }  // a model that learns already

  template <class V>
  void visit(V& v) {
    v("lr", lr, "null or a number above 0", [](const auto& x) { return !x || *x > 0; });
    ScheduleConfig::visit(v);
  }
};

// A later part of a run. train.batch_tokens stays, so rows a batch change with their length.
struct StageConfig {
  int64_t at_step = 0;                    // steps done when it begins
  std::optional<int64_t> seq_len_tokens;  // null: as before
  StageData data;
  std::optional<StageSchedule> schedule;  // null: the one before goes on

  template <class V>
  void visit(V& v) {
    v("at_step", at_step, "a count above 0", [](int64_t x) { return x > 0; });
    v("seq_len_tokens", seq_len_tokens, "null or a count above 0",
      [](const auto& x) { return !x || *x > 0; });
    v.section("data", data);
    v.optional_section("schedule", schedule);
  }
};

struct TrainSettings {
  std::string objective = "pretrain";
  std::vector<StageConfig> stages;
  int64_t steps = 400;
  int64_t batch_tokens = 8192;        // global
  int64_t micro_batch_tokens = 4096;  // what memory holds; accumulation follows
  std::string recompute = "none";     // none | selective | block
  int64_t validate_every_steps = 50;
  double z_loss = 0;  // coefficient of the squared log sum of exp logits, a token
  NonfiniteConfig nonfinite;
  SpikeConfig spike;

  template <class V>
  void visit(V& v) {
    auto positive = [](int64_t x) { return x > 0; };
    v("objective", objective, "pretrain", [](const std::string& s) { return s == "pretrain"; });
    v.list("stages", stages, "a list of {at_step, seq_len_tokens, data, schedule}");
    v("steps", steps, "a count above 0", positive);
    v("batch_tokens", batch_tokens, "a count above 0", positive);
    v("micro_batch_tokens", micro_batch_tokens, "a count above 0", positive);
    v("recompute", recompute, "none, selective or block",
      [](const std::string& s) { return s == "none" || s == "selective" || s == "block"; });
    v("validate_every_steps", validate_every_steps, "a count above 0", positive);
    v("z_loss", z_loss, "a number of at least 0", [](double x) { return x >= 0; });
    v.section("nonfinite", nonfinite);
    v.section("spike", spike);
  }
  std::vector<std::pair<std::string, std::string>> problems() const {
    std::vector<std::pair<std::string, std::string>> list;
    int64_t before = 0;
    for (size_t i = 0; i < stages.size(); ++i) {
      const int64_t at = stages[i].at_step;
      if (at <= before || at >= steps)
        list.emplace_back("stages", cat("[", i, "].at_step: expected above ", before,
                                        i > 0 ? " (the stage before)" : "", " and below steps (",
                                        steps, "), got \"", at, "\""));
      before = at;
    }
    return list;
  }
};

struct CheckpointConfig {
  int64_t every_steps = 100;
  int64_t keep_last = 3;
  std::optional<int64_t> keep_every_steps;  // milestones: saved, and kept for ever
  bool async = true;  // written from a snapshot in host memory while training goes on

  template <class V>
  void visit(V& v) {
    v("every_steps", every_steps, "a count above 0", [](int64_t x) { return x > 0; });
    v("keep_last", keep_last, "a count above 0", [](int64_t x) { return x > 0; });
    v("keep_every_steps", keep_every_steps, "null or a count above 0",
      [](const auto& x) { return !x || *x > 0; });
    v("async", async, "true or false", [](bool) { return true; });
  }
};

struct MetricsConfig {
  bool jsonl = true;             // RUN/metrics.jsonl: every step
  bool tensorboard = true;       // RUN/tensorboard/: every step
  int64_t log_every_steps = 10;  // lines on standard output, where that is no terminal

  template <class V>
  void visit(V& v) {
    v("jsonl", jsonl, "true or false", [](bool) { return true; });
    v("tensorboard", tensorboard, "true or false", [](bool) { return true; });
    v("log_every_steps", log_every_steps, "a count above 0", [](int64_t x) { return x > 0; });
  }
};

struct Config {
  RunConfig run;
  LmConfig model;
  DataConfig data;
  TrainSettings train;
  OptimConfig optim;
  ParallelConfig parallel;
  CheckpointConfig checkpoint;
  MetricsConfig metrics;

  template <class V>
  void visit(V& v) {
    v.section("run", run);
    v.section("model", model);
    v.section("data", data);
    v.section("train", train);
    v.section("optim", optim);
    v.section("parallel", parallel);
    v.section("checkpoint", checkpoint);
    v.section("metrics", metrics);
  }
  std::vector<std::pair<std::string, std::string>> problems() const {
    std::vector<std::pair<std::string, std::string>> found;
    for (size_t i = 0; data.task && i < train.stages.size(); ++i)
      if (!train.stages[i].data.train.empty() || !train.stages[i].data.validation.empty())
        found.emplace_back("train.stages", cat("[", i, "].data: expected none beside data.task"));
    if (optim.offload == "host" && run.device != "cuda")
      found.emplace_back("optim", cat("offload: expected none on the CPU, where the states are in "
                                      "the host's memory anyway (run.device is ",
                                      run.device, "), got \"host\""));
    return found;
  }
};

}  // namespace sluice
