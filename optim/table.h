// optim/table.h -- which optimizer has which tensor: printed at start.
#pragma once

#include <string>
#include <vector>

#include "model/autograd/param_store.h"
#include "optim/groups.h"

namespace sluice {

// One line for the tensors of all layers that share name, shape and settings; after them one an
// optimizer, with its Newton-Schulz calls a step, and QK-clip's heads.
std::string settings_table(const OptimConfig& config, const ParamStore& params,
                           const std::vector<ParamSettings>& settings);

}  // namespace sluice
