// kernels/grad_norm/grad_norm.h -- global-norm clipping in two steps, with room between them for
// the sum over ranks. The host decides nothing: the result goes into the StepState on the device.
#pragma once

#include <span>

#include "kernels/tensor/context.h"
#include "kernels/tensor/step_state.h"

namespace sluice {

// sum_of_squares = sum over all elements of all tensors of g^2, in f64 and in one fixed order.
struct GradNorm {
  std::span<const Tensor> grads;  // in  [n] each, f32 or f64
  Tensor sum_of_squares;          // out [1] f64
};
void grad_norm(const Context& ctx, const GradNorm& a);

// Elements that are summed on their own; these parts are then added up in order.
constexpr int64_t kGradNormElements = 1 << 14;

// norm = sqrt(sum_of_squares); grad_scale = max_norm / norm if that is below 1, else 1; skip = the
// norm is not finite. max_norm 0: no clipping.
struct ClipFactor {
  Tensor sum_of_squares;  // in [1] f64, over all ranks
  double max_norm = 0;
  StepState* state;  // out: grad_norm, grad_scale, skip; in the device's memory
};
void clip_factor(const Context& ctx, const ClipFactor& a);

}  // namespace sluice
