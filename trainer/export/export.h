// trainer/export/export.h -- a checkpoint as a folder that other engines load.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "kernels/tensor/tensor.h"

namespace sluice {

struct ExportOptions {
  DType dtype = DType::bf16;  // or f32
  // That must load it (model/export/engines/targets.h). Empty: transformers, or where its layers
  // are all kda flash-linear-attention. What the others say is in `others`.
  std::vector<std::string> engines{};
  int64_t context_tokens = 0;  // 0: the longest row of the run's config
  int64_t max_shard_bytes = int64_t(5) << 30;
};

struct Exported {
  std::string checkpoint, architecture;
  std::vector<std::string> skipped;  // newer checkpoints, and what is wrong with them
  std::vector<std::string> notes;    // what engines do otherwise, and which cannot load it
  int64_t tensors = 0, bytes = 0;
};

// `path` as find_checkpoint() takes it. `out` must not be there; it appears when it is complete.
// Throws, before anything is written, with every reason why one of the engines could not load it.
Exported export_checkpoint(const std::string& path, const std::string& out,
                           const ExportOptions& options,
                           const std::function<void(int64_t, int64_t)>& progress);

}  // namespace sluice
