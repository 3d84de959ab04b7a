// data/encode/count_words.h -- the words of text of any size, for the training of a tokenizer.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "data/text/blocks.h"
#include "data/tokenizer/bpe_train.h"

namespace sluice {

struct CountedWords {
  WordCounts counts;
  int64_t documents = 0, text_bytes = 0;
};
// Of the documents that are not held out. Memory: the distinct words.
CountedWords count_words(
    const std::vector<InputFile>& inputs, const TextOptions& options, const HoldOut& hold_out,
    const std::string& pattern, int threads,
    const std::function<void(int64_t file_bytes, int64_t text_bytes)>& progress = {});

}  // namespace sluice
