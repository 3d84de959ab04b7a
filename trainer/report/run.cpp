// trainer/report/run.cpp -- reads what is there, says what is not.
#include "trainer/report/run.h"

#include <cmath>
#include <fstream>
#include <optional>

#include "configs/schema.h"
#include "model/autograd/plain_store.h"
#include "model/export/posix_file.h"
#include "model/lm/cost.h"
#include "trainer/loop/config.h"

namespace sluice {

namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kListed = 200;  // of each kind of event; the rest is counted

// A number, or one of the names that JsonLines gives to what JSON lacks.
std::optional<double> number(const Json& j) {
  if (j.is_number()) return j.get<double>();
  if (j == "nan") return NAN;
  if (j == "inf") return INFINITY;
  if (j == "-inf") return -INFINITY;
  return std::nullopt;
}

void add_line(RunRecord& run, Json line) {
  const std::string event = line.at("event");
  const int64_t step = line.at("step");
  std::map<std::string, double> numbers;
  for (const auto& [key, value] : line.items())
    if (key != "step")
      if (const auto x = number(value)) numbers[key] = *x;
  if (!numbers.empty())
    run.series[event].add(step, numbers);
  else if (++run.event_counts[event] <= kListed)
    run.events.push_back(std::move(line));
}

bool is_record(const Json& j) {
  return j.is_object() && j.contains("event") && j["event"].is_string() && j.contains("step") &&
         j["step"].is_number_integer();
}

void read_metrics(RunRecord& run) {
  std::ifstream in(run.dir + "/metrics.jsonl");
  SLUICE_CHECK(in.good(), run.dir, "/metrics.jsonl cannot be read");
  int64_t lines = 0, damaged = 0, first = 0;
  for (std::string text; std::getline(in, text);) {
    ++lines;
    Json line = Json::parse(text, nullptr, false);
    if (is_record(line))
      add_line(run, std::move(line));
    else if (++damaged == 1)
      first = lines;
  }
  for (auto& [event, series] : run.series) series.sort();
  if (damaged > 0)
    run.problems.push_back(cat("metrics.jsonl: ", damaged, " of ", lines,
                               " lines are no records and were left out, the first is line ",
                               first));
  for (const auto& [event, series] : run.series)
    for (const auto& [field, count] : series.not_finite)
      run.problems.push_back(cat(event, ".", field, ": ", count, " of ", series.steps.size(),
                                 " values are not finite and leave gaps"));
  for (const auto& [event, count] : run.event_counts)
    if (count > kListed)
      run.problems.push_back(
          cat("of ", count, " events \"", event, "\" the first ", kListed, " are shown"));
}

void read_config(RunRecord& run) {
  const std::string path = run.dir + "/config.yaml";
  try {
    const auto config = config::load_string<Config>(read_text(path), path);
    for (const config::Line& line : config::flatten(config))
      if (!line.value.empty()) run.config[line.path] = line.value;
    run.facts = {{"steps", config.train.steps},
                 {"batch_tokens", config.train.batch_tokens},
                 {"seq_len_tokens", config.data.seq_len_tokens}};
    if (!config.model.vocab_size) return;
    PlainStore params(DType::f32);
    const Lm lm(config.model, params);
    run.facts["parameters"] = params.numel();
    run.facts["active_parameters"] = active_parameters(lm, params);
  } catch (const Error& e) {
    run.problems.push_back(cat("config.yaml: ", e.what()));
  }
}

void read_evaluations(RunRecord& run) {
  const std::string folder = run.dir + "/eval";
  for (const std::string& name : names_in(folder)) {
    if (!name.ends_with(".json")) continue;
    Json content = Json::parse(std::ifstream(folder + "/" + name), nullptr, false);
    if (content.is_object() && content.contains("kind"))
      run.evaluations[name.substr(0, name.size() - 5)] = std::move(content);
    else
      run.problems.push_back(cat("eval/", name, ": no evaluation (an object with \"kind\")"));
  }
}

}  // namespace

bool is_run(const std::string& dir) {
  return exists(dir + "/metrics.jsonl");
}

RunRecord read_run(const std::string& dir) {
  RunRecord run;
  run.dir = dir;
  read_metrics(run);
  read_config(run);
  read_evaluations(run);
  return run;
}

}  // namespace sluice
