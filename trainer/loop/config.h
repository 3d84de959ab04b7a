// trainer/loop/config.h -- the whole config of `sluice train`, one section a folder.
#pragma once

#include <optional>
#include <string>

#include "data/loader/config.h"
#include "model/lm/config.h"
#include "optim/config.h"

namespace sluice {

struct RunConfig {
  std::string name = "run";
  std::string dir = "runs/run";
  int64_t seed = 1;                // initial values and sampling
  std::string device = "auto";     // auto | cpu
  std::optional<int64_t> threads;  // null: one a core

  template <class V>
  void visit(V& v) {
    auto text = [](const std::string& s) { return !s.empty(); };
    v("name", name, "a name", text);
    v("dir", dir, "a folder", text);
    v("seed", seed, "a number of at least 0", [](int64_t x) { return x >= 0; });
    v("device", device, "auto or cpu (training on CUDA is not there yet)",
      [](const std::string& s) { return s == "auto" || s == "cpu"; });
    v("threads", threads, "null (one a core) or a count above 0",
      [](const auto& x) { return !x || *x > 0; });
  }
};

struct TrainSettings {
  std::string objective = "pretrain";
  int64_t steps = 400;
  int64_t batch_tokens = 8192;        // global
  int64_t micro_batch_tokens = 4096;  // what memory holds; accumulation follows
  std::string recompute = "none";     // none | block
  int64_t validate_every_steps = 50;

  template <class V>
  void visit(V& v) {
    auto positive = [](int64_t x) { return x > 0; };
    v("objective", objective, "pretrain", [](const std::string& s) { return s == "pretrain"; });
    v("steps", steps, "a count above 0", positive);
    v("batch_tokens", batch_tokens, "a count above 0", positive);
    v("micro_batch_tokens", micro_batch_tokens, "a count above 0", positive);
    v("recompute", recompute, "none or block",
      [](const std::string& s) { return s == "none" || s == "block"; });
    v("validate_every_steps", validate_every_steps, "a count above 0", positive);
  }
};

struct CheckpointConfig {
  int64_t every_steps = 100;
  int64_t keep_last = 3;
  std::optional<int64_t> keep_every_steps;  // and these for ever

  template <class V>
  void visit(V& v) {
    v("every_steps", every_steps, "a count above 0", [](int64_t x) { return x > 0; });
    v("keep_last", keep_last, "a count above 0", [](int64_t x) { return x > 0; });
    v("keep_every_steps", keep_every_steps, "null or a count above 0",
      [](const auto& x) { return !x || *x > 0; });
  }
};

struct MetricsConfig {
  int64_t log_every_steps =
      10;  // plain lines, where there is no terminal; JSON lines have every step

  template <class V>
  void visit(V& v) {
    v("log_every_steps", log_every_steps, "a count above 0", [](int64_t x) { return x > 0; });
  }
};

struct Config {
  RunConfig run;
  LmConfig model;
  DataConfig data;
  TrainSettings train;
  OptimConfig optim;
  CheckpointConfig checkpoint;
  MetricsConfig metrics;

  template <class V>
  void visit(V& v) {
    v.section("run", run);
    v.section("model", model);
    v.section("data", data);
    v.section("train", train);
    v.section("optim", optim);
    v.section("checkpoint", checkpoint);
    v.section("metrics", metrics);
  }
};

}  // namespace sluice
