// kernels/sigmoid_gate/sigmoid_gate.h -- y[n,c] = x[n,c] * sigmoid(gate[n,c])
//
//   dx = dy s,   dgate = dy x s (1 - s),   s = sigmoid(gate)
//
// With x as its own gate it is SiLU: then dgate adds to dx's memory.
// Dims: N tokens, C channels. Rows may be strided everywhere.
#pragma once

#include "kernels/tensor/context.h"

namespace sluice {

struct SigmoidGateForward {
  Tensor x;     // in  [N, C] T
  Tensor gate;  // in  [N, C] T, logits; may be x
  Tensor y;     // out [N, C] T
};
struct SigmoidGateBackward {
  Tensor x, gate;  // in  [N, C] T, as in forward
  Tensor dy;       // in  [N, C] T
  Grad dx, dgate;  // out [N, C] T; the same memory if gate is x: then dgate adds
};

void sigmoid_gate_forward(const Context& ctx, const SigmoidGateForward& a);
void sigmoid_gate_backward(const Context& ctx, const SigmoidGateBackward& a);

}  // namespace sluice
