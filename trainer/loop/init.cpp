// trainer/loop/init.cpp -- every difference is named, none is worked around.
#include "trainer/loop/init.h"

#include <algorithm>
#include <set>

#include "configs/schema.h"
#include "trainer/checkpoint/tensors.h"

namespace sluice {

void check_tensors(const CheckpointRef& from, Part part, const std::vector<NamedTensor>& into) {
  const CheckpointTensors reader(from, part);
  std::vector<std::string> problems;
  std::set<std::string> wanted;
  for (const NamedTensor& n : into) {
    wanted.insert(n.name);
    const SafetensorsEntry* there = reader.find(n.name);
    const SafetensorsEntry here = entry_of(n);
    if (!there)
      problems.push_back(cat(n.name, ": not there, here ", to_string(here)));
    else if (there->shape != here.shape || there->dtype != here.dtype)
      problems.push_back(cat(n.name, ": there ", to_string(*there), ", here ", to_string(here)));
  }
  for (const SafetensorsEntry& e : reader.entries())
    if (!wanted.contains(e.name))
      problems.push_back(cat(e.name, ": there ", to_string(e), ", not here"));
  if (problems.empty()) return;
  constexpr size_t kShown = 20;
  std::string text = cat("run.init: ", reader.path(), " does not fit this model, ", problems.size(),
                         " tensors differ:");
  for (size_t i = 0; i < std::min(kShown, problems.size()); ++i) text += "\n  " + problems[i];
  throw Error(problems.size() > kShown ? text + "\n  ..." : text);
}

std::vector<std::string> differences_from(const CheckpointMeta& from, const Config& config) {
  const auto old = config::load_string<Config>(from.config_yaml, "config.yaml of the checkpoint");
  std::vector<std::string> list;
  for (const auto& [key, was, is] : config::diff(old, config))
    if (key.rfind("run.", 0) != 0 && key.rfind("metrics.", 0) != 0)
      list.push_back(cat(key, ": there ", was, ", here ", is));
  return list;
}

int64_t weights_checksum(const CheckpointRef& from) {
  const Manifest m = read_manifest(from);
  if (m.ranks == 1) return int64_t(m.files.at(file_name(Part::weights)).crc32);
  std::string all;  // tensor by tensor: however many ranks have written them
  const CheckpointTensors weights(from, Part::weights);
  for (const SafetensorsEntry& e : weights.entries()) all += e.name + hex(*weights.crc32(e.name));
  return int64_t(crc32_of(all.data(), int64_t(all.size())));
}

}  // namespace sluice
