// trainer/export/gguf_vocabulary.h -- a tokenizer as llama.cpp's GGUF files have it.
#pragma once

#include <vector>

#include "data/tokenizer/tokenizer.h"
#include "model/export/gguf.h"

namespace sluice {

// The keys tokenizer.ggml.*, for a model of so many ids (more than the tokenizer's are unused
// ones). A new document begins with end_of_text, as `sluice generate` has it: llama.cpp adds it
// too.
//
// llama.cpp has no regexes in its files: it knows pre-tokenizers by name. Throws, saying what is
// needed, where none cuts text as this tokenizer does, or where its rules for added tokens are
// others.
GgufKeys gguf_vocabulary(const Tokenizer& tokenizer, int64_t vocab_size);

// Ordinary tokens that llama.cpp takes for the end of a text, whatever the file says of them.
std::vector<std::string> taken_for_ends(const Tokenizer& tokenizer);

}  // namespace sluice
