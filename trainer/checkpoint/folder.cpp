// trainer/checkpoint/folder.cpp -- step numbers as folder names.
#include "trainer/checkpoint/folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "model/export/posix_file.h"
#include "trainer/checkpoint/manifest.h"

namespace sluice {

std::string checkpoints_folder(const std::string& run_dir) {
  return run_dir + "/checkpoints";
}

std::string step_name(int64_t step) {
  return fmt::format("step-{:08}", step);
}

std::optional<int64_t> step_of(const std::string& name) {
  int64_t step = -1;
  if (name.rfind("step-", 0) != 0) return std::nullopt;
  std::from_chars(name.data() + 5, name.data() + name.size(), step);
  if (step < 0 || name != step_name(step)) return std::nullopt;
  return step;
}

// A copy of a checkpoint may have any name: its manifest knows the step.
NamedPath name_path(const std::string& path) {
  std::string at = path;
  while (at.size() > 1 && at.ends_with('/')) at.pop_back();
  const auto last = [&] { return at.substr(at.rfind('/') + 1); };
  if (const auto step = step_of(last())) return {CheckpointRef{at, *step}, ""};
  const std::string manifest = at + "/" + kManifestName;
  if (exists(manifest))
    return {CheckpointRef{at, parse_manifest(read_text(manifest), manifest).meta.step}, ""};
  if (last() == "latest" && !exists(at)) at = parent_of(at);
  if (last() == "checkpoints") at = parent_of(at);
  return {std::nullopt, at};
}

std::vector<CheckpointRef> list_checkpoints(const std::string& run_dir) {
  const std::string root = checkpoints_folder(run_dir);
  std::vector<CheckpointRef> refs;
  for (const std::string& name : names_in(root))
    if (const auto step = step_of(name)) refs.push_back({root + "/" + name, *step});
  std::sort(refs.begin(), refs.end(), [](const auto& a, const auto& b) { return a.step > b.step; });
  return refs;
}

}  // namespace sluice
