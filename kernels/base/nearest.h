// kernels/base/nearest.h -- the known name that a misspelled one most likely meant.
#pragma once

#include <string>
#include <vector>

namespace sluice {

// The entry of `known` with the smallest edit distance to `name`, if at most 2 edits away (or a
// third of the name's length, if that is more); otherwise an empty string.
std::string nearest_name(const std::vector<std::string>& known, const std::string& name);

}  // namespace sluice
