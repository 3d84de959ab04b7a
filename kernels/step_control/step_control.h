// kernels/step_control/step_control.h -- the life of a StepState, where the device's kernels are.
//
//   begin_step   before the first micro-batch; add_loss after each; clip_factor
//   (kernels/grad_norm); decide       then what skip says holds for the update, and `step` counts
//   it.
//
// On CUDA each is a launch on the context's stream: the host decides nothing and waits for nothing.
#pragma once

#include "kernels/tensor/context.h"
#include "kernels/tensor/step_state.h"

namespace sluice {

// Sets lr and stop; no loss yet. Beginning the same step twice is right.
void begin_step(const Context& ctx, StepState* state, float lr, int32_t stop = 0);

// Adds a micro-batch's part to the losses; terms in [2] f64: cross entropy, z-loss.
void add_loss(const Context& ctx, const Tensor& terms, StepState* state);

// skip, if the losses are not finite. step += 1 if nothing skips.
void decide(const Context& ctx, StepState* state);

}  // namespace sluice
