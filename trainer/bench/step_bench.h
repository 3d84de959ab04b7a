// trainer/bench/step_bench.h -- how fast a config's training step is, without data.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "trainer/loop/config.h"

namespace sluice {

struct StepBench {
  int64_t repeats = 5;  // measured steps, after one that warms up
  bool check = true;    // the first micro-batch's loss in f64 as well
};

// Runs whole steps of random tokens, from the first micro-batch to the optimizer, in rows of
// data.seq_len_tokens. Throws if the f32 loss is not that of an f64 run of the same weights (on the
// GPU: bf16, f32), or if the step took other memory than was planned.
nlohmann::ordered_json bench_step(const Config& config, const StepBench& bench);
std::string bench_step_text(const nlohmann::ordered_json& report);

}  // namespace sluice
