// kernels/linear_cross_entropy/linear_cross_entropy.h -- head and loss in one, in blocks of rows:
// the [N, V] logits never exist.
//
//   logits[n] = w h[n],  lse[n] = log sum_v exp logits[n,v]
//   loss = loss_scale * sum over valid n of (lse[n] - logits[n, targets[n]])
//   dlogits[n,v] = dloss * loss_scale * (exp(logits[n,v] - lse[n]) - [v == targets[n]]),  0 if not
//   valid dh = dlogits w,   dw = dlogits^T h           (logits are made again in backward)
//
// Dims: N tokens, D width, V vocabulary.
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
  Tensor lse;         // out [N] T, kept for backward
  Tensor nll;         // out [N] T, optional: per token, unscaled, 0 where not valid
};
struct LinearCrossEntropyBackward {
  Tensor h, w, targets, loss_scale, lse;  // as in forward
  Tensor dloss;                           // in  [1] f64
  Grad dh;                                // out [N, D] T, rows may be strided
  Grad dw;                                // out [V, D] T, summed over tokens in a fixed order
};

void linear_cross_entropy_forward(const Context& ctx, const LinearCrossEntropyForward& a);
void linear_cross_entropy_backward(const Context& ctx, const LinearCrossEntropyBackward& a);

// Rows of logits that exist at a time in backward, for all of V.
constexpr int64_t kCrossEntropyRows = 512;

}  // namespace sluice
