// trainer/sweep/sweep.cpp -- plan, run, collect.
#include "trainer/sweep/sweep.h"

#include <fmt/format.h>

#include <csignal>
#include <nlohmann/json.hpp>

#include "model/export/posix_file.h"
#include "trainer/checkpoint/run_lock.h"
#include "trainer/loop/signals.h"
#include "trainer/sweep/run_files.h"
#include "trainer/sweep/slurm.h"
#include "trainer/sweep/table.h"

namespace sluice {

static void write_table(const SweepPlan& plan, const std::vector<FailedRun>& failed) {
  const SweepTable table = make_table(plan, failed);
  if (table.rows.empty() && failed.empty()) return fmt::print("no run is done yet\n");
  const std::string dir = plan.sweep.dir + "/", text = to_markdown(table);
  replace_text(dir + "table.md", text);
  replace_text(dir + "table.csv", to_csv(table));
  replace_text(dir + "sweep.json", to_json(table).dump(1) + "\n");
  fmt::print("\n{}\n{}table.md, {}table.csv, {}sweep.json\n", text, dir, dir, dir);
}

ExitCode run_sweep(const SweepOptions& options, const RunChild& child) {
  const SweepPlan plan =
      with_code(ExitCode::config, [&] { return plan_sweep(options.file, options.set); });
  fmt::print("{}\n", plan_text(plan));
  std::fflush(stdout);
  if (options.plan_only) return ExitCode::done;
  check_data(plan);
  const RunLock lock(plan.sweep.dir);
  with_code(ExitCode::config, [&] { write_configs(plan); });
  const std::string& parallel = plan.sweep.parallel_runs;
  if (parallel == "slurm") {
    const ArrayJob job = submit_array(plan, options.program);
    write_table(plan, job.failed);
    if (job.waiting > 0) return ExitCode::requeue;
    return job.failed.empty() ? ExitCode::done : ExitCode::error;
  }
  const JobsEnd end = run_jobs(plan, parallel == "auto" ? 0 : std::stoi(parallel), child);
  if (end.signal != 0) {
    fmt::print("{}: stopped, runs are saved; the same command goes on\n", signal_name(end.signal));
    return end.signal == SIGINT ? ExitCode::interrupted : ExitCode::requeue;
  }
  write_table(plan, end.failed);
  return end.failed.empty() ? ExitCode::done : ExitCode::error;
}

}  // namespace sluice
