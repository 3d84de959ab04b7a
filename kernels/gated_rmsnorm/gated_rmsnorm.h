// kernels/gated_rmsnorm/gated_rmsnorm.h -- KDA's output: a norm per head, then a gate.
//
//   r[n,h]   = 1 / sqrt(mean_c x[n,h,c]^2 + eps)
//   y[n,h,c] = x[n,h,c] * r[n,h] * w[c] * act(gate[n,h,c])      act: sigmoid, or swish u *
//   sigmoid(u)
//
// With u = act(gate), e = dy * u: dx as in rmsnorm with e for dy; dw[c] = sum e * x * r;
// dgate = dy * x * r * w * act'(gate).  Dims: N tokens, H heads, C channels of a head.
// T is f32 or f64 on the CPU, bf16 on CUDA (C up to 256); S, of the weight and of sums, is f32 for
// bf16, else T.
#pragma once

#include "kernels/tensor/context.h"

namespace sluice {

enum class GateActivation : uint8_t { sigmoid, swish };

struct GatedRmsNormForward {
  Tensor x;     // in  [N, H, C] T, rows (dim 0) may be strided, as in every [N, H, C] here
  Tensor gate;  // in  [N, H, C] T, logits; optional: left out, y is the norm alone
  Tensor w;     // in  [C]       S, shared by all heads
  Tensor y;     // out [N, H, C] T
  Tensor rstd;  // out [N, H]    S, kept for backward
  double eps;
  GateActivation activation = GateActivation::sigmoid;
};
struct GatedRmsNormBackward {
  Tensor x, gate, w, rstd;  // as in forward
  Tensor dy;                // in  [N, H, C] T
  Grad dx;                  // out [N, H, C] T
  Grad dgate;               // out [N, H, C] T, if there is a gate
  Grad dw;                  // out [C]       S
  GateActivation activation = GateActivation::sigmoid;
  Tensor y{};  // out [N, H, C] T, optional: that of forward once more, to the bit
};

void gated_rmsnorm_forward(const Context& ctx, const GatedRmsNormForward& a);
void gated_rmsnorm_backward(const Context& ctx, const GatedRmsNormBackward& a);

constexpr int64_t kGatedRmsNormBlockRows = 64;  // tokens whose part of dw is summed on its own
constexpr int64_t kGatedRmsNormCudaRows = 16;   // the same on CUDA: more CTAs

}  // namespace sluice
