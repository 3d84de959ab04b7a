// data/text/hold_out.h -- which documents are set aside for validation.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "data/text/input_files.h"

namespace sluice {

struct TextOptions;  // data/text/blocks.h

struct HoldOut {
  enum class By : uint8_t {
    nothing,
    hash,  // whole documents, by a hash of seed and content: whatever the order of the inputs, and
           // equal documents go together
    tail,  // the last bytes of text files; the document that the cut meets is cut in two
  };
  By by = By::nothing;
  double fraction = 0;  // of the documents (hash) or of the bytes (tail)
  int64_t seed = 0;
};

// The hash is of a document's first 64 KiB, so that one of any length is decided where it begins.
constexpr size_t kHashedBytes = 1 << 16;
bool held_out_by_hash(const HoldOut& hold_out, std::string_view document);

// Where the tail begins. Reads every input twice; they must be text files.
struct TailCut {
  int64_t input, byte;
  bool mid_line;  // inside of a document
};
TailCut find_tail(const std::vector<InputFile>& inputs, const TextOptions& options,
                  double fraction);

}  // namespace sluice
