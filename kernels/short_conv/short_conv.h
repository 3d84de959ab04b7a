// kernels/short_conv/short_conv.h -- causal depthwise convolution of a few taps, then SiLU.
//
//   z[t,c] = sum_j w[c,j] x[t-(W-1)+j, c],   y = z * sigmoid(z)
//
// Rows before a document's start come from its initial state (zero without one). Backward makes z
// again:  dz = dy s (1 + z (1 - s)), s = sigmoid(z);  dx[t] = sum_j w[j] dz[t+(W-1)-j] within the
// document;  dw[j] = sum_t dz[t] x[t-(W-1)+j].
// Dims: N tokens, C channels, W taps (1 to 8), documents = cu_seqlens.dim(0) - 1.
// T is f32 or f64 on the CPU, bf16 on CUDA (backward without states); S, of sums, is f32 for bf16,
// else T.
#pragma once

#include "kernels/tensor/context.h"

namespace sluice {

struct ShortConvForward {
  Tensor x;              // in  [N, C] T, rows may be strided
  Tensor w;              // in  [C, W] T; tap W-1 multiplies the current token
  Tensor cu_seqlens;     // in  [documents + 1] i32
  Tensor initial_state;  // in  [documents, C, W-1] T, optional: the inputs before, oldest first
  Tensor y;              // out [N, C] T
  Tensor final_state;    // out [documents, C, W-1] T, optional; may be initial_state's memory
};
struct ShortConvBackward {
  Tensor x, w, cu_seqlens, initial_state;  // as in forward
  Tensor dy;                               // in  [N, C] T
  Tensor dfinal_state;                     // in  [documents, C, W-1] T, optional
  Grad dx;                                 // out [N, C] T, rows may be strided
  Grad dw;                                 // out [C, W] S
  Grad dinitial_state;                     // out [documents, C, W-1] T, optional
};

void short_conv_forward(const Context& ctx, const ShortConvForward& a);
void short_conv_backward(const Context& ctx, const ShortConvBackward& a);

constexpr int64_t kShortConvMaxWidth = 8;
// A block of rows: dw is summed within it, then over blocks.
constexpr int64_t kShortConvRows = 256, kShortConvCudaRows = 256;

}  // namespace sluice
