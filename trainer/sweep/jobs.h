// trainer/sweep/jobs.h -- the runs of a sweep as child processes, several at once.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "trainer/sweep/plan.h"

namespace sluice {

// Called in a child process, with its output in RUN/log.txt: trains the run of this config file,
// and ends the process as `sluice train` does.
using RunChild = std::function<void(const std::string& config_file, int threads)>;

struct FailedRun {
  std::string run, why;
};
struct JobsEnd {
  std::vector<FailedRun> failed;
  int signal = 0;  // that ended the sweep; all runs have saved
};

// Runs what is not finished, `at_once` (0: one a core) at a time, cores / at_once threads each. A
// run that fails is reported and leaves the others alone. Children end with this process, whatever
// ends it: they get SIGTERM, save, and go on in the next call.
JobsEnd run_jobs(const SweepPlan& plan, int at_once, const RunChild& child);

}  // namespace sluice
