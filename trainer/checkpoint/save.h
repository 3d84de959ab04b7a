// trainer/checkpoint/save.h -- the steps of a save, of one rank's or of many: open, write, seal,
// publish; or drop.
#pragma once

#include <span>
#include <string>

#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/manifest.h"

namespace sluice {

void check_save(const CheckpointMeta& meta, const Retention& retention);

std::string save_folder(const std::string& run_dir, int64_t step);  // .tmp-step-...: never loaded
// Makes it, empty.
std::string open_save(const std::string& run_dir, int64_t step);
void drop_save(const std::string& folder);  // with what is in it; throws nothing

// A .safetensors file, on the disk when this returns, and what the manifest says of it.
ManifestFile write_tensors(const std::string& path, std::span<const NamedTensor> tensors);

// The config and, when every file is on the disk, the manifest.
void seal_save(const std::string& folder, Manifest manifest);

// RUN/checkpoints/step-..., on the disk when this returns; and then old ones are removed.
SaveResult publish_save(const std::string& run_dir, const std::string& folder, int64_t step,
                        const Retention& retention);

}  // namespace sluice
