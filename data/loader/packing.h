// data/loader/packing.h -- which pieces of documents share a row: best fit, longest first.
//
// Source: Ding et al., 2024, "Fewer truncations improve language modeling" (arXiv:2404.10830). The
// longest piece comes first and goes into the fullest row that has room for it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace sluice {

struct Piece {
  int64_t begin, end;  // tokens of the shard; one document's
};
using PackedRow = std::vector<Piece>;  // in the order in which they came

// Rows of at most `row_tokens` tokens for documents that begin at offsets[0], offsets[1], ... and
// end where the next begins (the last of the offsets ends the last). Documents longer than a row
// are cut, into whole rows and what is left; no other is. O(n log n), a function of the arguments.
std::vector<PackedRow> pack_best_fit(std::span<const int64_t> offsets, int64_t row_tokens);

}  // namespace sluice
