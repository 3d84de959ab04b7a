// trainer/sweep/plan.h -- a sweep file resolved: every run with its whole config, before any runs.
//
// rows = variants x ladder x axes (but for seeds); runs = rows x tune x seeds.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "trainer/loop/config.h"
#include "trainer/sweep/config.h"
#include "trainer/sweep/match.h"

namespace sluice {

struct SweepRun {
  std::string name;  // of its folder
  Config config;     // run.name and run.dir are its own; run.threads is null
};

// Runs of one row that differ in their seeds alone.
struct SweepCandidate {
  std::string tuned;  // "optim.lr=0.001"; empty: nothing is
  std::vector<size_t> runs;
};

struct MatchedWidth {
  int64_t before = 0, after = 0;
  double deviation = 0;  // relative, from what is matched
};

// A line of the table.
struct SweepRow {
  std::string name;  // "3:1", "3:1 small data.task.kind=mqar"
  std::string variant, size;
  std::string law;      // "3:1 data.task.kind=mqar": rows that differ in their size alone
  std::string group;    // size and data: rows that are compared with each other
  std::string cell;     // size and axes: rows that differ in their variant alone
  std::string decides;  // the validation set that tune and fits go by; empty: neither is asked for
  Config config;        // of its first run
  int64_t vocab_size = 0;
  ModelSize model;
  std::optional<MatchedWidth> matched;
  std::vector<SweepCandidate> candidates;
};

struct SweepPlan {
  SweepConfig sweep;
  Config base;
  std::vector<SweepRow> rows;
  std::vector<SweepRun> runs;

  std::string run_dir(const SweepRun& run) const { return sweep.dir + "/runs/" + run.name; }
};

// Throws, with places in the sweep file where there are any: keys that a config does not have, two
// runs that are the same, variants that read other data orders, widths that cannot be matched.
SweepPlan plan_sweep(const std::string& file, const std::vector<std::string>& overrides);

// Throws, naming the files and sweep.prepare, if data that the runs read is not there.
void check_data(const SweepPlan& plan);

// What --plan prints: parameters, FLOPs, widths of all rows, and the runs.
std::string plan_text(const SweepPlan& plan);

}  // namespace sluice
