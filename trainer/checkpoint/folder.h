// trainer/checkpoint/folder.h -- the names of checkpoints' folders, and which there are.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "trainer/checkpoint/checkpoint.h"

namespace sluice {

std::string checkpoints_folder(const std::string& run_dir);  // "RUN/checkpoints"
std::string step_name(int64_t step);                         // "step-00000400"
std::optional<int64_t> step_of(const std::string& name);     // none: no name of step_name

// What a user's path names: one checkpoint, or a run (its folder, checkpoints/,
// checkpoints/latest).
struct NamedPath {
  std::optional<CheckpointRef> one;  // intact or not
  std::string run_dir;
};
NamedPath name_path(const std::string& path);

// The checkpoints of a run, newest first, intact or not.
std::vector<CheckpointRef> list_checkpoints(const std::string& run_dir);

}  // namespace sluice
