// kernels/muon/muon.h -- one step of Muon on matrices of one shape, in place.
//
//   g = grad * state.grad_scale;  M = mu M + g;  U = mu M + g                       (Nesterov)
//   X = U / |U|_F;  ns_steps times  X = a X + b (X X^T) X + c (X X^T)^2 X           (Newton-Schulz)
//   p -= lr * (weight_decay * p + 0.2 sqrt(max(m, n)) X)
//
// a, b, c = 3.4445, -4.7750, 2.0315; lr = state.lr * lr_scale; nothing changes if state.skip is
// set. U = 0 gives X = 0. Source: arXiv:2502.16982, section 2. Dims: B matrices of m rows and n
// columns.
#pragma once

#include "kernels/tensor/context.h"
#include "kernels/tensor/step_state.h"

namespace sluice {

struct Muon {
  Tensor param;            // in, out [B, m, n] T: the master weights
  Tensor grad;             // in      [B, m, n] T: as accumulated, not clipped
  Tensor m;                // in, out [B, m, n] T: the momentum M, zero before the first step
  Tensor copy{};           // out     [B, m, n] bf16: param after the step, rounded; or none. CUDA
  const StepState* state;  // in the device's memory; not read in plan mode
  double lr_scale = 1, momentum = 0.95, weight_decay = 0;
  int64_t ns_steps = 5;
};

void muon(const Context& ctx, const Muon& a);

}  // namespace sluice
