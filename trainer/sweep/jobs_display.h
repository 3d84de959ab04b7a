// trainer/sweep/jobs_display.h -- a line for each run that has ended, live lines for those that
// run.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "trainer/sweep/plan.h"
#include "trainer/sweep/run_files.h"

namespace sluice {

// On a terminal the live lines are rewritten in place; elsewhere they are printed once a minute.
class JobsDisplay {
 public:
  explicit JobsDisplay(const SweepPlan& plan);

  void ended(const SweepRun& run, const std::string& how);
  void update(const std::vector<const SweepRun*>& running);

 private:
  double flops_per_step(const SweepRun& run) const;
  std::string line(const SweepRun& run, const RunStatus& s) const;
  std::string total(double done_flops) const;
  void clear();

  const SweepPlan& plan_;
  bool terminal_;
  size_t widest_ = 0;
  size_t live_lines_ = 0;  // on the terminal now
  size_t ended_ = 0;
  double began_, printed_ = 0;                    // seconds
  std::map<std::string, double> flops_per_step_;  // by run
  double all_flops_ = 0;                          // of what is to do, at the start and later
  double ended_flops_ = 0;                        // of it, by runs that have ended
  std::map<std::string, int64_t> first_step_;     // done before this sweep's process
};

}  // namespace sluice
