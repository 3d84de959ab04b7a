// trainer/report/report.h -- runs and sweeps as one HTML page that needs nothing else.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace sluice {

// `paths`: folders of runs (metrics.jsonl) and of sweeps (sweep.json; their runs are read as well).
// Throws if one is neither. What the page shows, in this form:
//
// {"runs": [{"name", "dir", "group", "facts": {..}, "config": {KEY: VALUE}, "series": {EVENT:
//            thin()}, "last": {EVENT: {FIELD: x}}, "events": [..], "event_counts": {..},
//            "evaluations": {NAME: content}, "problems": [..]}],
//  "sweeps": [{"dir", "content": sweep.json, "problems": [..]}]}
//
// "group": the variant of the sweep that the run belongs to, else its name. "config": keys whose
// values differ between the runs; of a single run, those that are not the defaults.
nlohmann::ordered_json report_data(const std::vector<std::string>& paths);

// The page; `data` is in it as JSON.
std::string report_html(const nlohmann::ordered_json& data);

}  // namespace sluice
