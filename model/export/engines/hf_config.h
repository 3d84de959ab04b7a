// model/export/engines/hf_config.h -- the JSON files of a Hugging Face folder.
#pragma once

#include <string>

#include "model/export/engines/targets.h"

namespace sluice {

// What a folder says of its text; of a model without a tokenizer, a task's, nothing.
struct TextFacts {
  int64_t context_tokens = 0;    // the longest row that training read
  int64_t end_of_text = -1;      // id; -1: none
  std::string end_of_text_text;  // "<|endoftext|>"
};

// `bf16`: of the weights; `model.vocab_size` is set.
std::string hf_config(const LmConfig& model, Architecture a, const TextFacts& text, bool bf16);
std::string hf_generation_config(const TextFacts& text);
std::string hf_tokenizer_config(const TextFacts& text);

}  // namespace sluice
