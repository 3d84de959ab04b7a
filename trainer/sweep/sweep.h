// trainer/sweep/sweep.h -- a sweep from its file to its table; the same call goes on after a stop.
#pragma once

#include <string>
#include <vector>

#include "trainer/loop/exit_code.h"
#include "trainer/sweep/jobs.h"

namespace sluice {

struct SweepOptions {
  std::string file;
  std::vector<std::string> set;  // "a.b=c", of the sweep file
  bool plan_only = false;        // print what would be run
  std::string program{};         // sluice, for the script of an array job
};

// SWEEP_DIR/table.md, table.csv, sweep.json, and the first of them on standard output. A run that
// failed is named there and makes this ExitCode::error; a signal gives its own code, without a
// table. Runs that wait in a Slurm queue give ExitCode::requeue, and a table of the others.
ExitCode run_sweep(const SweepOptions& options, const RunChild& child);

}  // namespace sluice
