// kernels/tensor/rounding_blocks.h -- rounding_bits() of many elements in a row, as SIMD.
#pragma once

#include "kernels/tensor/stochastic.h"

namespace sluice {

class RoundingBlock {
 public:
  static constexpr int64_t kMost = 256;  // elements at a time

  // rounding_bits() of elements first .. first + n of an update's tensors.
  const uint32_t* draw(const StateRounding& rounding, int64_t first, int64_t n, int64_t step) {
    const int64_t element = rounding.begin + first, quad = element / 4,
                  quads = (element + n + 3) / 4 - quad;
    for (int64_t q = 0; q < quads; ++q) {
      const PhiloxWords r = philox_words(rounding.key, uint64_t(quad + q), uint64_t(step));
      for (int w = 0; w < 4; ++w) words_[4 * q + w] = r.w[w];
    }
    return words_ + element % 4;
  }

 private:
  uint32_t words_[kMost + 8];
};

}  // namespace sluice
