// data/text/hold_out.cpp -- a hash a document, or one cut near the end.
#include "data/text/hold_out.h"

#include <cmath>

#include "data/text/documents.h"
#include "kernels/base/check.h"

namespace sluice {

// FNV-1a, whose upper bits are poor; the finisher of splitmix64 spreads them.
bool held_out_by_hash(const HoldOut& hold_out, std::string_view document) {
  uint64_t h = 0xcbf29ce484222325u;
  for (const char c : document.substr(0, kHashedBytes)) h = (h ^ uint8_t(c)) * 0x100000001b3u;
  h ^= uint64_t(hold_out.seed) * 0x9e3779b97f4a7c15u;
  h = (h ^ h >> 30) * 0xbf58476d1ce4e5b9u;
  h = (h ^ h >> 27) * 0x94d049bb133111ebu;
  h ^= h >> 31;
  return double(h >> 11) * 0x1p-53 < hold_out.fraction;
}

TailCut find_tail(const std::vector<InputFile>& inputs, const TextOptions& options,
                  double fraction) {
  SLUICE_CHECK(fraction >= 0 && fraction < 1, "held-out fraction is ", fraction);
  for (const InputFile& input : inputs)
    if (input.format != TextFormat::text || input.bytes == 0)
      throw Error(cat(input.path,
                      ": a tail can be held out of text files only; documents are held "
                      "out by hash"));
  const auto each = [&](const auto& take) {  // until take() has its place
    BlockReader reader(inputs, options, {});
    for (Block block; reader.next(block);)
      for_each_piece(block, inputs, options, {}, [&](const Piece& p) { take(block, p.text); });
  };
  int64_t total = 0, seen = 0;
  each([&](const Block&, std::string_view text) { total += int64_t(text.size()); });
  const int64_t cut = total - std::llround(double(total) * fraction);
  TailCut found{int64_t(inputs.size()), 0, false};
  each([&](const Block& block, std::string_view text) {
    const int64_t end = seen + int64_t(text.size());
    if (found.input == int64_t(inputs.size()) && end > cut) {
      size_t at = size_t(std::max<int64_t>(cut - seen, 0));
      // Not inside of a UTF-8 character, which has at most three bytes after its first.
      for (int i = 0; i < 3 && at > 0 && (text[at] & 0xC0) == 0x80; ++i) --at;
      const int64_t byte = block.begin.byte + (text.data() - block.text.data()) + int64_t(at);
      found = {block.begin.input, byte,
               at > 0 || (block.begin.inside && text.data() == block.text.data())};
    }
    seen = end;
  });
  return found;
}

}  // namespace sluice
