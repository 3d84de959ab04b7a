// optim/qk_clip.h -- QK-clip: attention logits are held down by the weights that make them.
//
//   S = largest scaled logit of a head in the step;  where S > threshold, gamma = threshold / S and
//   the head's rows of q and k without position *= sqrt(gamma),  of q with position *= gamma
//
// The key slice with positions is of all heads and stays, so every logit of the head becomes gamma
// times what it was. Logits are those of the whole step: all micro-batches, and all ranks, over
// which StepStats::max_logits() is made the largest before. After the optimizer; a skipped step
// changes nothing. Source: Kimi K2, arXiv:2507.20534, algorithm 1.
#pragma once

#include "kernels/tensor/context.h"
#include "kernels/tensor/step_state.h"
#include "model/autograd/step_stats.h"

namespace sluice {

// Changes this rank's shards of the parameters with ParamSpec::heads, and their rounded copies.
void qk_clip(const Context& ctx, const ParamStore& params, const StepStats& stats, double threshold,
             const StepState* state);
// How many heads of max_logits, on the host, are over the threshold.
int64_t heads_over(const Tensor& max_logits, double threshold);

}  // namespace sluice
