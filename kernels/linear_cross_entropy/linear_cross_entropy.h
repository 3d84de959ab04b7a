// kernels/linear_cross_entropy/linear_cross_entropy.h -- head and loss in one, in blocks of rows:
// the [N, V] logits never exist.
//
//   logits[n] = w h[n],  lse[n] = log sum_v exp logits[n,v]
//   loss = loss_scale * sum over valid n of (lse[n] - logits[n, targets[n]] + z_loss lse[n]^2)
//   p[n,v] = exp(logits[n,v] - lse[n])                 (logits are made again in backward)
//   dlogits[n,v] = dloss * loss_scale * ((1 + 2 z_loss lse[n]) p[n,v] - [v == targets[n]])
//   for valid n, else 0;   dh = dlogits w,   dw = dlogits^T h
//
// z_loss > 0 draws lse to 0, so that logits do not drift (arXiv:2204.02311, section 5).
// Dims: N tokens, D width, V vocabulary. T is f32 or f64 on the CPU, bf16 on CUDA; S, of sums, is
// f32 for bf16, else T.
#pragma once

#include "kernels/tensor/context.h"

namespace sluice {

constexpr int32_t kIgnoreIndex = -1;

struct LinearCrossEntropyForward {
  Tensor h;           // in  [N, D] T, rows may be strided
  Tensor w;           // in  [V, D] T
  Tensor targets;     // in  [N] i32, 0 .. V-1 or kIgnoreIndex: on the CPU another id is an Error
  Tensor loss_scale;  // in  [1] f64: 1 / valid tokens of the whole global batch
  Tensor loss;        // out [1] f64
  Tensor terms;       // out [2] f64, optional: what loss is the sum of, cross entropy and z-loss
  Tensor lse;         // out [N] S, kept for backward
  Tensor nll;         // out [N] S, optional: cross entropy, unscaled, 0 where not valid
  // out [N] i32, optional: argmax of the logits, the lowest of equals, also where not valid. A row
  // with a NaN among its logits gets some id.
  Tensor predicted{};
  double z_loss = 0;
  // Optional, both or none: the gradients for dloss = 1, while the logits are there. Instead of
  // backward, which makes them again.
  Tensor dh{};  // out [N, D] T, rows may be strided
  Grad dw{};    // out [V, D] S, summed over tokens in a fixed order
};
struct LinearCrossEntropyBackward {
  Tensor h, w, targets, loss_scale, lse;  // as in forward
  Tensor dloss;                           // in  [1] f64
  Grad dh;                                // out [N, D] T, rows may be strided
  Grad dw;                                // out [V, D] S, summed over tokens in a fixed order
  double z_loss = 0;
};

void linear_cross_entropy_forward(const Context& ctx, const LinearCrossEntropyForward& a);
void linear_cross_entropy_backward(const Context& ctx, const LinearCrossEntropyBackward& a);

// Rows of logits that exist at a time, for all of V.
constexpr int64_t kCrossEntropyRows = 512;
constexpr int64_t kCrossEntropyCudaRows = 2048;  // dw is read and written once for so many

}  // namespace sluice
