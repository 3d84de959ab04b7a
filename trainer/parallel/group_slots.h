// trainer/parallel/group_slots.h -- memory that whole groups are in while they are used.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "kernels/comm/comm_queue.h"
#include "kernels/tensor/buffer.h"

namespace sluice {

class GroupSlots {
 public:
  struct Slot {
    int64_t begin = 0;                             // bytes
    int group = -1;                                // that is in it; -1: none
    int64_t used = 0;                              // when that was last asked for
    std::optional<CommQueue::Ticket> ticket = {};  // of the work on it that nobody waited for yet
  };

  // bytes[g] for group g. turns: that many slots, as large as the largest group, taken in turns;
  // 0: each group has its own.
  void plan(const std::vector<int64_t>& bytes, int turns);
  int64_t bytes() const { return bytes_; }
  void allocate(Device device);

  Slot* find(int group);  // the one that it is in, which is then the last used; or null
  // Puts it into its own slot, or into the one not used for longest whose group may go; null: none.
  Slot* take(int group, const std::function<bool(int)>& may_go);
  void forget();  // no group is in any
  Tensor part(const Slot& slot, int64_t begin, DType dtype, int64_t elements) const;

 private:
  bool own_ = false;
  std::vector<Slot> slots_;
  int64_t bytes_ = 0, clock_ = 0;
  Buffer memory_;  // u8
};

}  // namespace sluice
