// optim/groups.h -- which parameter is whose, decays, and how fast it learns.
//
// With optim.kind muon, ParamSpec::matrix says what is Muon's; all else is AdamW's. The built-in
// rule of decay comes from the model as well: ParamSpec::weight_decay (matrices decay; norms,
// A_log, dt_bias and the like do not). Then optim.groups, in order.
#pragma once

#include <string>
#include <vector>

#include "model/autograd/param_store.h"
#include "optim/config.h"

namespace sluice {

enum class Owner : uint8_t { adamw, muon };

struct ParamSettings {
  Owner owner = Owner::adamw;
  double weight_decay = 0;
  double lr_scale = 1;
  int rule = -1;  // of optim.groups, the last that matched; -1: the built-in one
};

ParamSettings settings_of(const OptimConfig& config, const ParamSpec& spec);
// By trained shard. A rule that matches no parameter of the model is an Error that says so, and so
// is Muon for a model without a matrix.
std::vector<ParamSettings> param_settings(const OptimConfig& config, const ParamStore& params);

}  // namespace sluice
