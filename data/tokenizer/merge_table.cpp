// data/tokenizer/merge_table.cpp -- open addressing with linear probes.
#include "data/tokenizer/merge_table.h"

namespace sluice {

bool MergeTable::add(int32_t a, int32_t b, int32_t made) {
  if (2 * (by_rank_.size() + 1) > slots_.size()) grow();
  const uint64_t pair = key(a, b);
  size_t i = home(pair);
  while (slots_[i].pair != kEmpty) {
    if (slots_[i].pair == pair) return false;
    i = (i + 1) & (slots_.size() - 1);
  }
  slots_[i] = {pair, {int32_t(by_rank_.size()), made}};
  by_rank_.push_back({a, b});
  return true;
}

void MergeTable::grow() {
  const std::vector<Slot> old = std::move(slots_);
  slots_ = std::vector<Slot>(2 * old.size());
  --shift_;
  for (const Slot& s : old) {
    if (s.pair == kEmpty) continue;
    size_t i = home(s.pair);
    while (slots_[i].pair != kEmpty) i = (i + 1) & (slots_.size() - 1);
    slots_[i] = s;
  }
}

}  // namespace sluice
