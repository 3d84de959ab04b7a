// model/autograd/group_holds.h -- which parameter groups a pass holds: what every store has to
// know.
#pragma once

#include <vector>

#include "model/autograd/param_store.h"

namespace sluice {

class GroupHolds {
 public:
  void start(const ParamStore& params);  // nothing is held

  void acquire(int group, Pass pass);
  void release(int group, Pass pass);
  bool any(int group) const { return all_.at(size_t(group)) > 0; }
  bool backward(int group) const { return backward_.at(size_t(group)) > 0; }

  // A value asked for outside its block is refused by every store, so that code which works on one
  // rank works on many.
  void check_value(const ParamSpec& spec) const;
  void check_grad(const ParamSpec& spec) const;

 private:
  const ParamStore* params_ = nullptr;
  std::vector<int> all_;       // by group: how often, forward and backward
  std::vector<int> backward_;  // by group: of those, backward
};

}  // namespace sluice
