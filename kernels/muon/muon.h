// kernels/muon/muon.h -- one step of Muon on matrices of one shape, in place; and its three parts,
// for matrices that lie cut on several ranks.
//
//   g = grad * state.grad_scale;  M = mu M + g;  U = mu M + g                       (Nesterov)
//   X = U / |U|_F;  ns_steps times  X = a X + b (X X^T) X + c (X X^T)^2 X           (Newton-Schulz)
//   p -= lr * (weight_decay * p + 0.2 sqrt(max(m, n)) X)
//
// a, b, c = 3.4445, -4.7750, 2.0315; lr = state.lr * lr_scale; nothing changes if state.skip is
// set. U = 0 gives X = 0. Source: arXiv:2502.16982, section 2. Dims: B matrices of m rows and n
// columns.
//
// The first and the third line are of elements, the second needs whole matrices. What is between
// them, U and X, is of type W: what the products take, bf16 on CUDA and else T. So a step whose
// parts run on different ranks, and hand over W, has the bits of muon().
//
// M may be bf16 where T is f32: U is made of the new M as it is before it is stored, by stochastic
// rounding (kernels/tensor/stochastic.h).
#pragma once

#include "kernels/tensor/context.h"
#include "kernels/tensor/step_state.h"
#include "kernels/tensor/stochastic.h"

namespace sluice {

struct Muon {
  Tensor param;   // in, out [B, m, n] T: the master weights
  Tensor grad;    // in      [B, m, n] T: as accumulated, not clipped
  Tensor m;       // in, out [B, m, n] T or bf16: the momentum M, zero before the first step
  Tensor copy{};  // out     [B, m, n] bf16: param after the step, rounded; or none. CUDA
  const StepState* state;  // in the device's memory; not read in plan mode
  double lr_scale = 1, momentum = 0.95, weight_decay = 0;
  int64_t ns_steps = 5;
  StateRounding rounding{};  // of M by the low 16 bits; for bf16
};

void muon(const Context& ctx, const Muon& a);

// Any elements of matrices: n of them.
struct MuonMomentum {
  Tensor grad;  // in      [n] T
  Tensor m;     // in, out [n] T or bf16
  Tensor u;     // out     [n] W; not written in a skipped step
  const StepState* state;
  double momentum = 0.95;
  StateRounding rounding{};
};
struct Orthogonalize {
  Tensor x;                // in U, out X [B, m, n] W
  const StepState* state;  // of a skipped step nothing is computed
  int64_t ns_steps = 5;
};
// Any elements of matrices whose longer side, max(m, n), is `longer`.
struct MuonApply {
  Tensor param;   // in, out [n] T
  Tensor x;       // in      [n] W
  Tensor copy{};  // out     [n] bf16, or none. CUDA
  const StepState* state;
  int64_t longer;
  double lr_scale = 1, weight_decay = 0;
};

DType muon_wire_type(const Tensor& param);  // W

void muon_momentum(const Context& ctx, const MuonMomentum& a);
void orthogonalize(const Context& ctx, const Orthogonalize& a);
void muon_apply(const Context& ctx, const MuonApply& a);

}  // namespace sluice
