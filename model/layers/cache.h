// model/layers/cache.h -- what a mixer keeps of the tokens it has seen, in a fixed number of slots.
//
// A slot holds one sequence. A call's documents are the slots, in order, an idle one being an empty
// document: so states are read and written where they lie, without an index or a copy.
#pragma once

#include <vector>

#include "kernels/tensor/buffer.h"
#include "kernels/tensor/fill.h"
#include "model/autograd/cache_ops.h"

namespace sluice {

struct MixerCache {
  std::vector<Buffer> state;  // each [slots, ...]: read from a sequence's first token on
  std::vector<Buffer> rows;   // each [slots, max_tokens, ...]: read up to its length only

  // For a new sequence. Stored, not scaled: what was there may be NaN. Rows need nothing.
  void clear(const Context& ctx, int64_t slot) const {
    for (const Buffer& b : state) zero(ctx, b.view().rows(slot, 1));
  }
};

}  // namespace sluice
