// trainer/export/export_gguf.h -- a checkpoint as one file that llama.cpp loads.
#pragma once

#include <functional>
#include <string>

#include "model/export/gguf_types.h"
#include "trainer/export/export.h"

namespace sluice {

struct GgufOptions {
  GgufType type = GgufType::bf16;  // of the matrices: f32, f16, bf16 or q8_0
  int64_t context_tokens = 0;      // 0: the longest row of the run's config
};

// `path` as find_checkpoint() takes it. `out` must not be there; it appears when it is complete.
// Throws, before anything is written, with the reasons why llama.cpp would compute something else,
// or cut text otherwise.
Exported export_gguf(const std::string& path, const std::string& out, const GgufOptions& options,
                     const std::function<void(int64_t, int64_t)>& progress);

}  // namespace sluice
