// trainer/checkpoint/folder.h -- the folders of checkpoints: names, making, listing, removing.
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

bool exists(const std::string& path);
// With its parents, on the disk when this returns; nothing happens if it is there.
void make_folder(const std::string& path);
void remove_tree(const std::string& path);  // nothing happens if it is not there

// The names in a folder, sorted; none if there is no folder.
std::vector<std::string> names_in(const std::string& folder);
// The checkpoints of a run, newest first, intact or not.
std::vector<CheckpointRef> list_checkpoints(const std::string& run_dir);

}  // namespace sluice
