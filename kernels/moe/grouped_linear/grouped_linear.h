// kernels/moe/grouped_linear/grouped_linear.h -- a linear layer whose weight depends on the row.
//
//   y[r,:] = w[e] x[r,:]     for the rows r of expert e, offsets[e] <= r < offsets[e+1]
//
//   dx[r,:] = w[e]^T dy[r,:]        dw[e] = sum over the rows of e of dy[r,:] x[r,:]^T
//
// Dims: R rows, sorted by expert (kernels/moe/dispatch), E experts, D inputs, F outputs. Experts
// may have no row: their weight gradient is zero, or left as it is when added to. Offsets are read
// on the device; the host knows R and E alone. T is f32 or f64 on the CPU, bf16 on CUDA; S sums:
// f32 for bf16, else T.
#pragma once

#include "kernels/tensor/context.h"

namespace sluice {

struct GroupedLinearForward {
  Tensor x;        // in  [R, D] T
  Tensor w;        // in  [E, F, D] T
  Tensor offsets;  // in  [E + 1] i32, from 0 to R, never falling
  Tensor y;        // out [R, F] T
};
struct GroupedLinearBackward {
  Tensor x;        // in  [R, D] T
  Tensor w;        // in  [E, F, D] T
  Tensor offsets;  // in  [E + 1] i32
  Tensor dy;       // in  [R, F] T
  Grad dx;         // out [R, D] T
  Grad dw;         // out [E, F, D] S, summed over rows in a fixed order
};

void grouped_linear_forward(const Context& ctx, const GroupedLinearForward& a);
void grouped_linear_backward(const Context& ctx, const GroupedLinearBackward& a);

}  // namespace sluice
