// kernels/swiglu/swiglu.h -- y[n,f] = silu(g[n,f]) * u[n,f],  gate_up[n] = [g | u]
//
//   silu(g) = g * s, s = sigmoid(g):   dg = dy * u * s * (1 + g * (1 - s)),   du = dy * g * s
//
// Source: Shazeer, 2020, arXiv:2002.05202. Dims: N tokens, F hidden width.
#pragma once

#include "kernels/tensor/context.h"

namespace sluice {

struct SwigluForward {
  Tensor gate_up;  // in  [N, 2F] T
  Tensor y;        // out [N, F]  T
};
struct SwigluBackward {
  Tensor gate_up;  // in  [N, 2F] T
  Tensor dy;       // in  [N, F]  T
  Grad dgate_up;   // out [N, 2F] T
  Tensor y{};      // out [N, F]  T, optional: that of forward once more, to the bit
};

void swiglu_forward(const Context& ctx, const SwigluForward& a);
void swiglu_backward(const Context& ctx, const SwigluBackward& a);

}  // namespace sluice
