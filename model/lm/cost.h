// model/lm/cost.h -- parameters and FLOPs by layer type: for the table at start-up and for MFU.
#pragma once

#include <string>

#include "model/lm/lm.h"

namespace sluice {

// FLOPs of forward and backward of one token: three times the forward's (the backward makes two
// products for each one), at this context length. Recomputation is not counted: MFU is about useful
// work.
double train_flops_per_token(const Lm& lm, int64_t context_tokens);

// Parameters that one token meets: all but those of the experts that it is not sent to.
int64_t active_parameters(const Lm& lm, const ParamStore& params);

// One row a layer type: how many layers, parameters and active parameters of all of them, forward
// FLOPs a token.
std::string cost_table(const Lm& lm, const ParamStore& params, int64_t context_tokens);

}  // namespace sluice
