// trainer/export/steps.h -- what folders and GGUF files are made of in the same way.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "data/tokenizer/tokenizer.h"
#include "model/export/engines/hf_config.h"
#include "model/export/engines/names.h"
#include "trainer/export/export.h"
#include "trainer/loop/config.h"

namespace sluice {

// `tokenizer` is loaded, unless the run has none.
TextFacts text_facts(const Config& config, int64_t context_tokens,
                     std::optional<Tokenizer>& tokenizer);

// Throws if one that was asked for cannot compute the model; `result` says what the others could
// not.
void check_engines(const LmConfig& model, const std::vector<std::string>& asked, Exported& result);

// Of models with tied embeddings, for classes that do not tie: a second tensor of the same values.
void untie_head(const LmConfig& model, std::vector<EngineTensor>& tensors);

}  // namespace sluice
