// optim/table.h -- which optimizer has which tensor: printed at start.
#pragma once

#include <string>
#include <vector>

#include "model/autograd/param_store.h"
#include "optim/groups.h"
#include "optim/muon_plan.h"

namespace sluice {

// One line for the tensors of all layers that share name, shape and settings; after them one an
// optimizer, with its Newton-Schulz calls a step, and QK-clip's heads. With plans of Muon over
// ranks, a tensor's line ends with the ranks that own its matrices, in their order.
std::string settings_table(const OptimConfig& config, const ParamStore& params,
                           const std::vector<MuonPlan>& plans = {});

}  // namespace sluice
