// kernels/moe/dispatch/dispatch.h -- tokens to the rows of their experts, and back. None is
// dropped.
//
//   R = N k routed rows, sorted by expert, those of one expert in the order of tokens:
//   place[n,j]   the routed row of choice j of token n (a permutation of 0 .. R-1)
//   offsets[e] .. offsets[e+1]   the routed rows of expert e
//
//   dispatch   xs[place[n,j],:] = x[n,:]                  dx[n,:] = sum_j dxs[place[n,j],:]
//   combine    y[n,:] = sum_j w[n,j] ys[place[n,j],:]     dys[place[n,j],:] = w[n,j] dy[n,:]
//                                                         dw[n,j] = <dy[n,:], ys[place[n,j],:]>
//
// Sums over choices run in the order j = 0, 1, ... Dims: N tokens, k choices, E experts, D width. T
// is f32 or f64 on the CPU, bf16 on CUDA; S sums: f32 for bf16, else T. On CUDA E <= 1024 and k
// <= 32.
#pragma once

#include "kernels/tensor/context.h"

namespace sluice {

// The sort. Offsets stay on the device: nothing after it needs a count on the host.
struct DispatchPlan {
  Tensor experts;  // in     [N, k] i32, each below E
  Tensor place;    // out    [N, k] i32
  Tensor offsets;  // out    [E + 1] i32
  Tensor counts;   // in/out [E] i64, optional: += routed rows of each expert
};
struct DispatchForward {
  Tensor x;      // in  [N, D] T
  Tensor place;  // in  [N, k] i32, of dispatch_plan
  Tensor xs;     // out [N k, D] T
};
struct DispatchBackward {
  Tensor dxs;    // in  [N k, D] T
  Tensor place;  // in  [N, k] i32
  Grad dx;       // out [N, D] T
};
struct CombineForward {
  Tensor ys;       // in  [N k, D] T
  Tensor weights;  // in  [N, k] S
  Tensor place;    // in  [N, k] i32
  Tensor y;        // out [N, D] T
};
struct CombineBackward {
  Tensor ys;       // in  [N k, D] T
  Tensor weights;  // in  [N, k] S
  Tensor place;    // in  [N, k] i32
  Tensor dy;       // in  [N, D] T
  Grad dys;        // out [N k, D] T
  Grad dweights;   // out [N, k] S
};

void dispatch_plan(const Context& ctx, const DispatchPlan& a);
void dispatch_forward(const Context& ctx, const DispatchForward& a);
void dispatch_backward(const Context& ctx, const DispatchBackward& a);
void combine_forward(const Context& ctx, const CombineForward& a);
void combine_backward(const Context& ctx, const CombineBackward& a);

}  // namespace sluice
