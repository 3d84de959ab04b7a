// trainer/parallel/group_slots.cpp -- who is where.
#include "trainer/parallel/group_slots.h"

#include <algorithm>

namespace sluice {

void GroupSlots::plan(const std::vector<int64_t>& bytes, int turns) {
  own_ = turns == 0;
  int64_t largest = 0;
  for (const int64_t b : bytes) largest = std::max(largest, b);
  const size_t slots = own_ ? bytes.size() : std::min(bytes.size(), size_t(turns));
  for (size_t i = 0; i < slots; ++i) {
    slots_.push_back({.begin = bytes_});
    bytes_ += own_ ? bytes[i] : largest;
  }
}

void GroupSlots::allocate(Device device) {
  if (bytes_ > 0) memory_ = Buffer(DType::u8, {bytes_}, device);
}

GroupSlots::Slot* GroupSlots::find(int group) {
  for (Slot& s : slots_) {
    if (s.group != group) continue;
    s.used = ++clock_;
    return &s;
  }
  return nullptr;
}

GroupSlots::Slot* GroupSlots::take(int group, const std::function<bool(int)>& may_go) {
  Slot* best = own_ ? &slots_.at(size_t(group)) : nullptr;
  if (!own_)
    for (Slot& s : slots_)
      if ((s.group < 0 || may_go(s.group)) && (!best || s.used < best->used)) best = &s;
  if (!best) return nullptr;
  best->group = group;
  best->used = ++clock_;
  return best;
}

void GroupSlots::forget() {
  for (Slot& s : slots_) s.group = -1;
}

Tensor GroupSlots::part(const Slot& slot, int64_t begin, DType dtype, int64_t elements) const {
  const Tensor bytes = memory_.view().rows(slot.begin + begin, elements * size_of(dtype));
  return make_tensor(bytes.data, dtype, bytes.device, {elements});
}

}  // namespace sluice
