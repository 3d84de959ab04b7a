// optim/groups.h -- which parameter decays, and how fast it learns.
//
// The built-in rule comes from the model: ParamSpec::weight_decay (matrices decay; norms, A_log,
// dt_bias and the like do not). Then optim.groups, in order.
#pragma once

#include <string>
#include <vector>

#include "model/autograd/param_store.h"
#include "optim/config.h"

namespace sluice {

struct ParamSettings {
  double weight_decay = 0;
  double lr_scale = 1;
  int rule = -1;  // of optim.groups, the last that matched; -1: the built-in one
};

// By trained shard. A rule that matches no parameter of the model is an Error that says so.
std::vector<ParamSettings> param_settings(const OptimConfig& config, const ParamStore& params);

// One line a kind of settings, with its tensors and elements: printed at start.
std::string settings_table(const OptimConfig& config, const ParamStore& params,
                           const std::vector<ParamSettings>& settings);

}  // namespace sluice
