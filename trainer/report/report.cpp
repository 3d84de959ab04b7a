// trainer/report/report.cpp -- gathers the folders' records and makes them fit one page.
#include "trainer/report/report.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <set>

#include "configs/schema.h"
#include "model/export/posix_file.h"
#include "trainer/loop/config.h"
#include "trainer/report/run.h"

namespace sluice {

namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

constexpr int64_t kPointsOfAll = 12000;  // rows of training metrics in a page, all runs together
constexpr int64_t kLeastPoints = 150, kMostPoints = 1500;  // of one run
constexpr int64_t kPointsOfLayers = 60;                    // of a run: each has hundreds of fields

struct Member {
  RunRecord run;
  std::string name, group;
};

struct Collected {
  std::vector<Member> members;
  std::set<std::string> seen;  // canonical folders
  Json sweeps = Json::array();
};

std::string folder_name(const std::string& dir) {
  return fs::path(fs::weakly_canonical(dir)).filename().string();
}

void add_run(Collected& all, const std::string& dir, const std::string& group) {
  if (!all.seen.insert(fs::weakly_canonical(dir).string()).second) return;
  all.members.push_back({read_run(dir), folder_name(dir), group});
}

// A sweep names its runs as seen from where it ran; it may have been moved since, or be looked at
// from elsewhere.
std::optional<std::string> find_run(const std::string& sweep, const std::string& named) {
  for (const std::string& at : {sweep + "/" + named, named, sweep + "/runs/" + folder_name(named)})
    if (is_run(at)) return at;
  return std::nullopt;
}

void add_sweep(Collected& all, const std::string& dir) {
  const std::string path = dir + "/sweep.json";
  Json content = Json::parse(read_text(path), nullptr, false);
  SLUICE_CHECK(content.is_object() && content.contains("rows") && content["rows"].is_array(), path,
               ": expected an object with \"rows\" as `sluice sweep` writes it");
  Json problems = Json::array();
  for (const Json& row : content["rows"])
    for (const Json& run : row.value("runs", Json::array())) {
      const std::string named = run.get<std::string>();
      if (const auto at = find_run(dir, named))
        add_run(all, *at, row.at("variant").get<std::string>());
      else
        problems.push_back(
            cat(named, ": no metrics.jsonl there, in ", dir, " or in ", dir, "/runs"));
    }
  all.sweeps.push_back(
      {{"dir", dir}, {"content", std::move(content)}, {"problems", std::move(problems)}});
}

// Keys of which the runs have different values; of one run, those that are not the defaults.
std::set<std::string> keys_to_show(const std::vector<Member>& members) {
  std::map<std::string, std::string> standard;
  for (const config::Line& line : config::flatten(Config{}))
    if (!line.value.empty()) standard[line.path] = line.value;
  std::set<std::string> keys;
  const auto compare = [&](const auto& a, const auto& b) {
    for (const auto& [key, value] : a)
      if (!b.contains(key) || b.at(key) != value) keys.insert(key);
  };
  for (const Member& m : members) {
    if (m.run.config.empty()) continue;  // could not be read: nothing is known
    const auto& other = members.size() == 1 ? standard : members[0].run.config;
    compare(m.run.config, other);
    if (!other.empty()) compare(other, m.run.config);
  }
  keys.erase("run.dir");
  keys.erase("run.name");
  return keys;
}

// The last number of each field, with all its digits.
Json last_values(const Series& series) {
  Json last = {{"step", series.steps.back()}};
  for (const auto& [field, values] : series.fields)
    if (std::isfinite(values.back())) last[field] = values.back();
  return last;
}

Json run_json(const Member& m, const std::set<std::string>& keys, int64_t points) {
  const RunRecord& run = m.run;
  Json j = {{"name", m.name}, {"dir", run.dir}, {"group", m.group}, {"facts", run.facts}};
  j["config"] = Json::object();
  for (const std::string& key : keys)
    if (run.config.contains(key)) j["config"][key] = run.config.at(key);
  j["series"] = j["last"] = Json::object();
  for (const auto& [event, series] : run.series) {
    j["series"][event] = thin(series, event == "layers" ? kPointsOfLayers : points);
    j["last"][event] = last_values(series);
  }
  j["events"] = run.events;
  j["event_counts"] = run.event_counts;
  j["evaluations"] = run.evaluations;
  j["problems"] = run.problems;
  return j;
}

}  // namespace

nlohmann::ordered_json report_data(const std::vector<std::string>& paths) {
  Collected all;
  for (const std::string& path : paths) {
    if (exists(path + "/sweep.json"))
      add_sweep(all, path);
    else if (is_run(path))
      add_run(all, path, "");
    else
      throw Error(cat(path, ": expected a run's folder (with metrics.jsonl) or a sweep's (with ",
                      "sweep.json), ", exists(path) ? "it has neither" : "it does not exist"));
  }
  std::map<std::string, int> uses;
  for (const Member& m : all.members) ++uses[m.name];
  for (Member& m : all.members) {
    if (uses[m.name] > 1) m.name = m.run.dir;
    if (m.group.empty()) m.group = m.name;
  }
  const std::set<std::string> keys = keys_to_show(all.members);
  const int64_t share = kPointsOfAll / std::max<int64_t>(1, int64_t(all.members.size()));
  const int64_t points = std::clamp(share, kLeastPoints, kMostPoints);
  Json data = {{"runs", Json::array()}, {"sweeps", std::move(all.sweeps)}};
  for (const Member& m : all.members) data["runs"].push_back(run_json(m, keys, points));
  return data;
}

}  // namespace sluice
