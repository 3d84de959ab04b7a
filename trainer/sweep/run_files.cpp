// trainer/sweep/run_files.cpp -- JSON lines; a last one that is cut off is not there yet.
#include "trainer/sweep/run_files.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "configs/schema.h"
#include "model/export/posix_file.h"

namespace sluice {

using Json = nlohmann::json;
namespace fs = std::filesystem;

// The last `bytes` of a file, from the start of a line.
static std::string tail(const std::string& path, int64_t bytes) {
  std::ifstream in(path, std::ios::binary | std::ios::ate);
  if (!in) return "";
  const int64_t begin = std::max<int64_t>(0, int64_t(in.tellg()) - bytes);
  in.seekg(begin);
  std::string text{std::istreambuf_iterator<char>(in), {}};
  return begin == 0 ? text : text.substr(std::min(text.size(), text.find('\n') + 1));
}

template <class F>
static void for_each_line(std::istream& in, F f) {
  for (std::string line; std::getline(in, line);) {
    const Json j = Json::parse(line, nullptr, false);
    if (j.is_object()) f(j);
  }
}

// NaN and infinities are texts in metrics.jsonl.
static double number(const Json& j, const char* key) {
  const auto it = j.find(key);
  if (it == j.end() || !it->is_number()) return std::numeric_limits<double>::quiet_NaN();
  return it->get<double>();
}

RunStatus read_status(const std::string& run_dir) {
  std::istringstream in(tail(run_dir + "/metrics.jsonl", 64 << 10));
  RunStatus s;
  for_each_line(in, [&](const Json& j) {
    const std::string event = j.value("event", "");
    s.state = event == "done"   ? RunStatus::State::done
              : event == "stop" ? RunStatus::State::stopped
                                : RunStatus::State::unfinished;
    s.step = j.value("step", int64_t(0));
    s.why = event == "stop" ? j.value("why", "") : "";
    if (event != "train") return;
    s.loss = number(j, "loss");
    s.tokens_per_second = number(j, "tokens_per_second");
  });
  return s;
}

RunMetrics read_metrics(const std::string& run_dir) {
  const std::string path = run_dir + "/metrics.jsonl";
  std::ifstream in(path);
  SLUICE_CHECK(in.good(), path, " cannot be read");
  RunMetrics m;
  for_each_line(in, [&](const Json& j) {
    const std::string event = j.value("event", ""), valid = "valid.";
    if (event == "train") {
      if (number(j, "skipped") == 0) m.losses.push_back(number(j, "loss"));
      m.tokens_per_second = number(j, "tokens_per_second");
    } else if (event.rfind(valid, 0) == 0) {
      auto& fields = m.valid[event.substr(valid.size())];
      fields.clear();  // what this event does not have is not known any more
      for (const auto& [key, value] : j.items())
        if (key != "event" && key != "step") fields[key] = number(j, key.c_str());
    }
  });
  return m;
}

std::string config_file(const std::string& run_dir) {
  return run_dir + "/run.yaml";
}
std::string log_file(const std::string& run_dir) {
  return run_dir + "/log.txt";
}

std::string last_line(const std::string& file) {
  std::istringstream in(tail(file, 4096));
  std::string last;
  for (std::string line; std::getline(in, line);)
    if (!line.empty()) last = line;
  return last;
}

void write_configs(const SweepPlan& plan) {
  std::string changed;
  for (const SweepRun& run : plan.runs) {
    const std::string dir = plan.run_dir(run), file = config_file(dir);
    if (read_status(dir).state == RunStatus::State::fresh || !fs::exists(file)) continue;
    for (const auto& [key, was, is] : config::diff(config::load<Config>(file), run.config))
      changed += cat("\n  ", run.name, ": ", key, " was ", was, ", is ", is);
  }
  if (!changed.empty())
    throw Error(cat(plan.sweep.dir, ": the sweep has changed for runs that have begun:", changed,
                    "\nSet it back, give the sweep another dir, or move these runs' folders away"));
  for (const SweepRun& run : plan.runs) {
    fs::create_directories(plan.run_dir(run));
    replace_text(config_file(plan.run_dir(run)), config::print(run.config));
  }
}

}  // namespace sluice
