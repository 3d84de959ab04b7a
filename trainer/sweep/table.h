// trainer/sweep/table.h -- what the runs of a sweep came to.
#pragma once

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

#include "trainer/sweep/jobs.h"
#include "trainer/sweep/plan.h"
#include "trainer/sweep/statistics.h"

namespace sluice {

enum class Better : uint8_t { neither, lower, higher };

struct SweepColumn {
  std::string key, title;
  Better better = Better::neither;
  int digits = 0;
};
struct SweepCell {
  Mean value;
  bool ns = false;  // from the best, or the baseline, by less than the noise
};
struct SweepTableRow {
  std::string name, variant, tuned;
  std::string group;                       // rows that are compared with each other
  std::string cell;                        // rows that are compared with the baseline
  std::vector<std::string> runs;           // folders
  std::map<std::string, SweepCell> cells;  // by column; what there is
};
struct SweepFit {
  std::string name;
  PowerLaw law;
  std::vector<std::pair<double, double>> points;  // compute, loss
};
struct SweepTable {
  std::string name, label, baseline, compute_unit;
  int64_t seeds = 1;  // at most, of a row
  std::vector<std::string> notes;
  std::vector<SweepColumn> columns;
  std::vector<SweepTableRow> rows;
  std::vector<FailedRun> failed;
  std::vector<SweepFit> fits;
  std::map<std::string, std::map<std::string, std::string>> config_differences;  // by row
};

// Of the runs that are done. Measures decoding, if the table has it.
SweepTable make_table(const SweepPlan& plan, const std::vector<FailedRun>& failed);

std::string to_markdown(const SweepTable& table);
std::string to_csv(const SweepTable& table);
nlohmann::ordered_json to_json(const SweepTable& table);

}  // namespace sluice
