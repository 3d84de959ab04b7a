// data/encode/cut_check.h -- whether a document that is longer than a block may be cut in two.
#pragma once

#include <string>

#include "data/text/documents.h"
#include "data/tokenizer/tokenizer.h"

namespace sluice {

// The pre-tokenizers for which last_safe_cut() is right.
constexpr const char* kCuttablePatterns[] = {"gpt2",  "qwen2", "cl100k",
                                             "o200k", "kimi",  "deepseek-v3"};

// Throws for a piece that is not a whole document, where cutting may change what comes of it.
class CutCheck {
 public:
  explicit CutCheck(const Pattern& pattern);
  explicit CutCheck(const Tokenizer& tokenizer);  // with its added tokens
  void operator()(const Piece& piece, const Block& block,
                  const std::vector<InputFile>& inputs) const;

 private:
  std::string not_with_;  // what forbids to cut; empty: nothing
};

}  // namespace sluice
