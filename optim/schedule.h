// optim/schedule.h -- the learning rate of a step.
#pragma once

#include "optim/config.h"

namespace sluice {

// step counts from 1 to total_steps. Warm-up is linear and reaches lr at step warmup_steps. wsd then
// holds lr and falls over the last decay_steps, by 1 - sqrt(x) or 1 - x, x the share of them done
// before this step; cosine falls from the end of the warm-up on. Both end at min_lr_ratio * lr.
double lr_at(const OptimConfig& config, int64_t step, int64_t total_steps);

}  // namespace sluice
