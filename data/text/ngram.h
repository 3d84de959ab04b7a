// data/text/ngram.h -- a byte n-gram model: the baseline that a trained model has to beat.
#pragma once

#include <string>
#include <vector>

namespace sluice {

// Bits a byte of `valid` under a byte model of the given order (3: a trigram, two bytes of context)
// counted on `train`, with Witten-Bell smoothing down to the uniform distribution. Context does not
// cross documents. order from 1 to 5.
double ngram_bits_per_byte(const std::vector<std::string>& train,
                           const std::vector<std::string>& valid, int order);

}  // namespace sluice
