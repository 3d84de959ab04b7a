// trainer/sweep/run_files.h -- what a run of a sweep leaves in its folder, read back.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "trainer/sweep/plan.h"

namespace sluice {

// RUN/metrics.jsonl says how far a run is: nothing else has to be kept, or can be lost.
struct RunStatus {
  enum class State : uint8_t {
    fresh,       // no metrics yet
    unfinished,  // running, or ended in between: it can go on
    done,
    stopped  // train.nonfinite ended it: it would end there again
  };
  State state = State::fresh;
  int64_t step = 0;
  double loss = 0, tokens_per_second = 0;  // of the last step
  std::string why;                         // stopped
};
RunStatus read_status(const std::string& run_dir);  // from the end of the file

struct RunMetrics {
  std::vector<double> losses;                                  // of all steps that were not skipped
  std::map<std::string, std::map<std::string, double>> valid;  // by set and field, the last ones;
                                                               // NaN: not finite
  double tokens_per_second = 0;
};
RunMetrics read_metrics(const std::string& run_dir);

std::string config_file(const std::string& run_dir);  // RUN/run.yaml: what `sluice train` is given
std::string log_file(const std::string& run_dir);     // RUN/log.txt
std::string last_line(const std::string& file);       // without its newline; empty: there is none

// Writes the configs of runs that have not begun. Throws, naming run and keys, if one that has
// begun was of another config.
void write_configs(const SweepPlan& plan);

}  // namespace sluice
