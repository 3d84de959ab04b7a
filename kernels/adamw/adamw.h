// kernels/adamw/adamw.h -- one step of AdamW on flat shards, in place.
//
//   g = grad * state.grad_scale;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
//   p -= lr * (weight_decay * p + (m / (1 - b1^step)) / (sqrt(v / (1 - b2^step)) + eps))
//
// lr = state.lr * lr_scale; nothing changes if state.skip is set. Decoupled decay: Loshchilov and
// Hutter, arXiv:1711.05101. States may be bf16: p moves by the new m and v as they are before they
// are stored, by stochastic rounding (kernels/tensor/stochastic.h).
#pragma once

#include <span>

#include "kernels/tensor/context.h"
#include "kernels/tensor/step_state.h"
#include "kernels/tensor/stochastic.h"

namespace sluice {

struct AdamW {
  Tensor param;            // in, out [n] T: the master weights
  Tensor grad;             // in      [n] T: as accumulated, not clipped
  Tensor m, v;             // in, out [n] T, or bf16 where T is f32: zero before the first step
  Tensor copy{};           // out     [n] bf16: param after the step, rounded; or none. CUDA
  const StepState* state;  // in the device's memory; not read in plan mode
  double lr_scale = 1, beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0;
  StateRounding rounding{};  // of m by the low 16 bits, of v by the high ones; for bf16
};

// State, betas, eps and the type of m and v are those of all. On CUDA some hundred shards are one
// launch.
void adamw(const Context& ctx, std::span<const AdamW> list);
inline void adamw(const Context& ctx, const AdamW& a) {
  adamw(ctx, std::span(&a, 1));
}

}  // namespace sluice
