// trainer/parallel/acquire_order.h -- which group is acquired next: the one that came next the last
// time that the same two were acquired in a row. (One alone does not tell: tied embeddings are
// acquired at both ends of a pass.)
#pragma once

#include <map>
#include <utility>

#include "model/autograd/param_store.h"

namespace sluice {

class AcquireOrder {
 public:
  // `group` is acquired; the next one, or -1: not known yet.
  int next(int group, Pass pass) {
    const int event = 2 * group + (pass == Pass::backward);
    if (now_ >= 0) after_[{before_, now_}] = event;
    before_ = now_;
    now_ = event;
    const auto found = after_.find({before_, now_});
    return found == after_.end() ? -1 : found->second / 2;
  }

 private:
  int before_ = -1, now_ = -1;
  std::map<std::pair<int, int>, int> after_;
};

}  // namespace sluice
