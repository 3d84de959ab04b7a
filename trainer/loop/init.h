// trainer/loop/init.h -- run.init: does a checkpoint of another run fit this one?
#pragma once

#include <string>
#include <vector>

#include "trainer/checkpoint/checkpoint.h"
#include "trainer/loop/config.h"

namespace sluice {

// Throws with every tensor that one of the two lacks, and every one of another shape or type, both
// told. Reads names only.
void check_tensors(const CheckpointRef& from, Part part, const std::vector<NamedTensor>& into);

// Keys that have other values in the run that `from` is of; run.* and metrics.* are left out.
std::vector<std::string> differences_from(const CheckpointMeta& from, const Config& config);

// CRC-32 of the weights' file (of many ranks: of the tensors' checksums), from the manifest: which
// weights they were, whatever the path says.
int64_t weights_checksum(const CheckpointRef& from);

}  // namespace sluice
