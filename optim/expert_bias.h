// optim/expert_bias.h -- load balancing without an auxiliary loss.
//
//   b[e] += rate * sign(mean load - load[e])     for each router, once an optimizer step
//
// The loads are those of the whole step: all micro-batches, and all ranks, over which
// StepStats::expert_counts() is summed before. A skipped step changes nothing; neither does a step
// without tokens. Source: Wang et al., 2024, arXiv:2408.15664.
#pragma once

#include "kernels/tensor/context.h"
#include "kernels/tensor/step_state.h"
#include "model/autograd/step_stats.h"

namespace sluice {

// `state` is in the memory of the device, which decides there whether the step is skipped. Changes
// this rank's shards of the parameters with UpdateRule::expert_load.
void update_expert_bias(const Context& ctx, const ParamStore& params, const StepStats& stats,
                        double rate, const StepState* state);

}  // namespace sluice
