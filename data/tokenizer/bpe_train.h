// data/tokenizer/bpe_train.h -- byte-pair encoding, learnt: the most frequent pair is merged, again
// and again. Source: Sennrich et al., arXiv:1508.07909; bytes as in GPT-2.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace sluice {

struct BpeTraining {
  std::vector<std::pair<int32_t, int32_t>>
      merges;  // merge i makes id 256 + i; ids below 256 are bytes
};

using WordCounts = std::unordered_map<std::string, int64_t>;

// Learns up to `merges` merges from words that occur so often; fewer if no pair occurs twice. Of
// equally frequent pairs the one of the lowest ids wins, so the result depends on the text alone.
// No two merges make the same bytes: as long as a stretch of text has token boundaries at its ends,
// what happens inside does not depend on what is around it, so equal bytes are merged at once.
BpeTraining train_bpe(const WordCounts& words, int64_t merges,
                      const std::function<void(int64_t)>& progress = {});
// The words of documents cut by the pattern. For text that is in memory.
BpeTraining train_bpe(const std::vector<std::string>& documents, const std::string& pattern,
                      int64_t merges, const std::function<void(int64_t)>& progress = {});

}  // namespace sluice
