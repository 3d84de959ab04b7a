// optim/schedule.h -- the learning rate of a step.
#pragma once

#include "optim/config.h"

namespace sluice {

// step counts from 1 to total_steps. Warm-up is linear and reaches lr at step warmup_steps. wsd
// then holds lr and falls over the last decay_steps, by 1 - sqrt(x) or 1 - x, x the share of them
// done before this step: towards min_lr_ratio * lr, which step total_steps + 1 would have, so that
// the last step of a decay to 0 still trains. cosine falls from the end of the warm-up on and is at
// min_lr_ratio * lr in step total_steps. Where a run is so short that warm-up and decay overlap,
// the smaller of the two holds.
double lr_at(const OptimConfig& config, int64_t step, int64_t total_steps);

}  // namespace sluice
