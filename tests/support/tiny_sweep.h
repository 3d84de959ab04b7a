// tests/support/tiny_sweep.h -- sweeps of tiny runs: files, and children that train in this
// program.
#pragma once

#include <nlohmann/json.hpp>

#include "configs/schema.h"
#include "tests/support/tiny_run.h"
#include "trainer/sweep/sweep.h"

namespace sluice::test {

class TinySweep : public TinyRun {
 protected:
  TinySweep() {
    Config base = config("base");
    base.train.steps = 8;
    base.train.validate_every_steps = 8;
    base.checkpoint.every_steps = 2;
    base.optim.schedule.warmup_steps = 2;
    base.optim.schedule.decay_steps = 2;
    base.run.threads.reset();
    std::ofstream(dir_ / "base.yaml") << config::print(base);
  }
  // DIR/FILE with this text after name, dir and base, which are line 1.
  std::string sweep_file(const std::string& text, const std::string& dir = "sweep") const {
    const std::string file = dir_ / (dir + ".yaml");
    std::ofstream(file) << "{name: tiny, dir: " << (dir_ / dir).string() << ", base: base.yaml,\n"
                        << text << "}\n";
    return file;
  }
  static void train(const std::string& config_file, int threads) {
    try {
      ExitCode code = ExitCode::done;
      {
        const std::string set = "run.threads=" + std::to_string(threads);
        Trainer t(config::load<Config>(config_file, {set}));
        code = t.run();
      }
      _exit(int(code));
    } catch (const std::exception& e) {
      fprintf(stderr, "%s\n", e.what());
      fflush(nullptr);
      _exit(int(ExitCode::error));
    }
  }
  // What it printed is in printed_.
  ExitCode sweep(const std::string& file) {
    ::testing::internal::CaptureStdout();
    ExitCode code = ExitCode::error;
    std::string error;
    try {
      code = run_sweep({.file = file, .set = {}, .program = dir_ / "sluice"}, train);
    } catch (const Error& e) {
      error = e.what();
    }
    printed_ = ::testing::internal::GetCapturedStdout() + error;
    return code;
  }
  nlohmann::json result(const std::string& dir = "sweep") const {
    return nlohmann::json::parse(read(dir_ / dir / "sweep.json"));
  }
  std::string printed_;
};

}  // namespace sluice::test
