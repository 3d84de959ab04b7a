// model/autograd/group_holds.cpp -- counts, since calls may nest.
#include "model/autograd/group_holds.h"

namespace sluice {

void GroupHolds::start(const ParamStore& params) {
  params_ = &params;
  all_.assign(size_t(params.groups()), 0);
  backward_.assign(size_t(params.groups()), 0);
}

void GroupHolds::acquire(int group, Pass pass) {
  ++all_.at(size_t(group));
  backward_.at(size_t(group)) += pass == Pass::backward;
}

void GroupHolds::release(int group, Pass pass) {
  SLUICE_CHECK(any(group), "group ", params_->group_name(group), " is not acquired");
  --all_[size_t(group)];
  backward_.at(size_t(group)) -= pass == Pass::backward;
}

void GroupHolds::check_value(const ParamSpec& s) const {
  SLUICE_CHECK(any(s.group), s.name, " is used outside its block ", params_->group_name(s.group));
}

void GroupHolds::check_grad(const ParamSpec& s) const {
  SLUICE_CHECK(backward(s.group), "gradient of ", s.name,
               " is used outside its block's backward pass");
  SLUICE_CHECK(s.rule == UpdateRule::gradient, s.name, " has no gradient");
}

}  // namespace sluice
