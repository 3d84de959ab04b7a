// kernels/linear/linear.h -- y[N,F] = x[N,D] w[F,D]^T
//
//   dx = dy w        dw = dy^T x
//
// Dims: N tokens, D inputs, F outputs. T is f32 or f64 on the CPU, bf16 on CUDA; S sums: f32 for
// bf16, else T. Rows of every matrix may be strided.
#pragma once

#include "kernels/tensor/context.h"

namespace sluice {

struct LinearForward {
  Tensor x;  // in  [N, D] T
  Tensor w;  // in  [F, D] T
  Tensor y;  // out [N, F] T, or the sums themselves, S
};
struct LinearBackward {
  Tensor x;   // in  [N, D] T, where dw is asked for
  Tensor w;   // in  [F, D] T
  Tensor dy;  // in  [N, F] T
  // One of them may be left out:
  Grad dx;  // out [N, D] T
  Grad dw;  // out [F, D] S, summed over tokens in a fixed order
};

void linear_forward(const Context& ctx, const LinearForward& a);
void linear_backward(const Context& ctx, const LinearBackward& a);

}  // namespace sluice
