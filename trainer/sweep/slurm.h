// trainer/sweep/slurm.h -- the runs of a sweep as one array job.
#pragma once

#include <string>

#include "trainer/sweep/jobs.h"

namespace sluice {

struct ArrayJob {
  std::vector<FailedRun> failed;
  size_t waiting = 0;  // runs that are not finished
};

// Writes DIR/slurm/array.sh and the list of folders that its tasks take, for what is not finished;
// prints the command, and submits it if there is an sbatch and the job of an earlier call is no
// longer queued. `program` is sluice. A task that Slurm ends early saves and is queued again.
ArrayJob submit_array(const SweepPlan& plan, const std::string& program);

}  // namespace sluice
