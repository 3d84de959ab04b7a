// kernels/tensor/step_state.h -- what changes from step to step, in the memory of the device.
//
// Kernels read it there, so that a captured graph never bakes a learning rate in, and a step can be
// skipped without asking the host. The host reads it one step late.
#pragma once

#include <cstdint>

namespace sluice {

struct StepState {
  int64_t step = 0;      // optimizer steps taken, this one included: 1 in the first step
  float lr = 0;          // learning rate of this step, before any group's scale
  float grad_scale = 1;  // clip factor: gradients count as grad * grad_scale
  float grad_norm = 0;   // global L2 norm before clipping
  int32_t skip = 0;      // 1: the gradients are not finite; the optimizer changes nothing
  double cross_entropy = 0, z_loss = 0;  // of the step's micro-batches, until now
  int32_t stop = 0;  // a signal that asks the run to end after this step; 0: none
};

}  // namespace sluice
