// data/text/documents.h -- the documents in blocks, and all of a small file's at once.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "data/text/blocks.h"

namespace sluice {

// A document, or a part of one that is longer than a block. Bytes are kept as they are.
struct Piece {
  std::string_view text;
  bool begins, ends;  // the document
  bool held_out;
};

// In order. Throws with file and line for JSON that is none or has no such string.
void for_each_piece(const Block& block, const std::vector<InputFile>& inputs,
                    const TextOptions& options, const HoldOut& hold_out,
                    const std::function<void(const Piece&)>& take);

struct Documents {
  std::vector<std::string> kept, held_out;
};
// All of them in memory. Throws if there is none.
Documents read_documents(const std::vector<InputFile>& inputs, const TextOptions& options,
                         const HoldOut& hold_out = {});

}  // namespace sluice
