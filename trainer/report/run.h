// trainer/report/run.h -- what a run's folder tells: metrics.jsonl, config.yaml, eval/*.json.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "trainer/report/series.h"

namespace sluice {

struct RunRecord {
  std::string dir;
  std::map<std::string, Series> series;  // by event: "train", "valid.kjv", ...
  nlohmann::ordered_json events = nlohmann::ordered_json::array();  // {"event", "step", texts...}
  std::map<std::string, int64_t> event_counts;                      // listed in `events` or not
  std::map<std::string, std::string> config;  // resolved: key and value as YAML
  nlohmann::ordered_json facts;  // of the config: {"parameters", "active_parameters", ...}
  nlohmann::ordered_json evaluations = nlohmann::ordered_json::object();  // by file name
  std::vector<std::string> problems;  // what was left out, and why
};

bool is_run(const std::string& dir);  // has a metrics.jsonl

// Lines that are no records are left out and counted in `problems`, and so is a config or an
// evaluation that cannot be read.
RunRecord read_run(const std::string& dir);

}  // namespace sluice
