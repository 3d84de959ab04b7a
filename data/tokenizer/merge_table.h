// data/tokenizer/merge_table.h -- the merges of a vocabulary: by rank, and by pair in one look-up.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace sluice {

constexpr int32_t kNoRank = 0x7FFFFFFF;

class MergeTable {
 public:
  struct Merge {
    int32_t rank, made;  // rank kNoRank: the pair does not merge
  };

  // The next rank. False if the pair is there already.
  bool add(int32_t a, int32_t b, int32_t made);
  Merge find(int32_t a, int32_t b) const {
    const uint64_t pair = key(a, b);
    for (size_t i = home(pair);; i = (i + 1) & (slots_.size() - 1)) {
      if (slots_[i].pair == pair) return slots_[i].merge;
      if (slots_[i].pair == kEmpty) return {kNoRank, -1};
    }
  }
  const std::vector<std::pair<int32_t, int32_t>>& by_rank() const { return by_rank_; }

 private:
  static constexpr uint64_t kEmpty = ~uint64_t(0);  // ids are not negative
  struct Slot {
    uint64_t pair = kEmpty;
    Merge merge = {kNoRank, -1};
  };
  static uint64_t key(int32_t a, int32_t b) { return uint64_t(uint32_t(a)) << 32 | uint32_t(b); }
  size_t home(uint64_t pair) const { return size_t(pair * 0x9E3779B97F4A7C15u >> shift_); }
  void grow();

  std::vector<Slot> slots_ = std::vector<Slot>(16);  // a power of two, at most half of it full
  int shift_ = 60;
  std::vector<std::pair<int32_t, int32_t>> by_rank_;
};

}  // namespace sluice
