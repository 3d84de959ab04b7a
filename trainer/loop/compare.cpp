// trainer/loop/compare.cpp -- numbers as they were printed, tensors as they were stored.
#include "trainer/loop/compare.h"

#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "kernels/tensor/buffer.h"
#include "trainer/checkpoint/tensors.h"

namespace sluice {

namespace {

using Json = nlohmann::json;

std::vector<Json> read_metrics(const std::string& run) {
  const std::string path = run + "/metrics.jsonl";
  std::ifstream in(path);
  if (!in) throw Error(cat(path, ": ", std::strerror(errno)));
  std::vector<Json> lines;
  int64_t number = 0;
  for (std::string line; std::getline(in, line);) {
    ++number;
    Json j = Json::parse(line, nullptr, false);
    if (j.is_discarded()) throw Error(cat(path, ":", number, ": no JSON"));
    const std::string event = j.value("event", "");
    if (event != "train" && event.rfind("valid.", 0) != 0) continue;  // starts, saves, signals
    for (const char* of_time : {"tokens_per_second", "mfu", "seconds", "data_wait_ms"})
      j.erase(of_time);
    lines.push_back(std::move(j));
  }
  return lines;
}

void compare_metrics(const std::string& a, const std::string& b, std::vector<std::string>& out) {
  const std::vector<Json> la = read_metrics(a), lb = read_metrics(b);
  if (la.size() != lb.size())
    out.push_back(cat("metrics.jsonl: ", la.size(), " lines against ", lb.size()));
  for (size_t i = 0; i < std::min(la.size(), lb.size()); ++i)
    if (la[i] != lb[i]) {
      out.push_back(cat("metrics.jsonl: ", la[i].dump(), " against ", lb[i].dump()));
      return;
    }
}

void compare_part(const CheckpointRef& a, const CheckpointRef& b, Part part,
                  std::vector<std::string>& out) {
  const CheckpointTensors ra(a, part), rb(b, part);
  for (const SafetensorsEntry& e : ra.entries()) {
    const Buffer x(e.dtype, {e.numel()}), y(e.dtype, {e.numel()});
    ra.read_slice(e.name, 0, x.view());
    rb.read_slice(e.name, 0, y.view());
    if (std::memcmp(x.view().data, y.view().data, size_t(x.view().bytes())) != 0)
      out.push_back(cat(e.name, ": different bits"));
  }
}

}  // namespace

std::vector<std::string> compare_runs(const std::string& run_a, const std::string& run_b) {
  std::vector<std::string> out;
  compare_metrics(run_a, run_b, out);
  const auto a = find_newest_valid(run_a, &out), b = find_newest_valid(run_b, &out);
  if (!a || !b) {
    out.push_back("a run has no valid checkpoint");
  } else if (a->step != b->step) {
    out.push_back(cat("newest checkpoint: step ", a->step, " against ", b->step));
  } else {
    compare_part(*a, *b, Part::weights, out);
    compare_part(*a, *b, Part::optimizer, out);
  }
  return out;
}

}  // namespace sluice
