// data/encode/cut_check.cpp -- patterns that are known, and added tokens across a cut.
#include "data/encode/cut_check.h"

#include <algorithm>

#include "kernels/base/check.h"

namespace sluice {

CutCheck::CutCheck(const Pattern& pattern) {
  const std::string name = pattern_name(pattern);
  if (std::count(std::begin(kCuttablePatterns), std::end(kCuttablePatterns), name) == 0)
    not_with_ = cat("the published pre-tokenizers only, not for: ", name);
}

// Special tokens too: they are text, but nothing is found inside of them.
CutCheck::CutCheck(const Tokenizer& tokenizer) : CutCheck(tokenizer.pretokenizer().pattern()) {
  for (const AddedToken& t : tokenizer.added())
    if (not_with_.empty() && last_safe_cut(t.content) > 0)
      not_with_ = cat("added tokens without a place to cut only, not for: \"", t.content, "\"");
}

void CutCheck::operator()(const Piece& piece, const Block& block,
                          const std::vector<InputFile>& inputs) const {
  if (not_with_.empty() || (piece.begins && piece.ends)) return;
  throw Error(cat(inputs[size_t(block.begin.input)].path, ": byte ", block.begin.byte,
                  ": a document longer than a block (", BlockReader::kBlockBytes,
                  " bytes) is cut, which is known to be right for ", not_with_));
}

}  // namespace sluice
