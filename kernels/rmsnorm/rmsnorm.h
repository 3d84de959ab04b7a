// kernels/rmsnorm/rmsnorm.h -- root-mean-square norm over the last dimension.
//
//   r[n]   = 1 / sqrt(mean_c x[n,c]^2 + eps)
//   y[n,c] = x[n,c] * r[n] * w[c]
//   dx     = r * (w*dy - x * r^2 * mean_c(w*dy*x)),    dw[c] = sum_n dy[n,c] * x[n,c] * r[n]
//
// Source: Zhang and Sennrich, 2019, arXiv:1910.07467.
// Dims:   N rows (tokens), C channels. Rows of x and dx may be strided.
// Types:  T is f32 or f64 on the CPU (f64 for gradient checks), bf16 on CUDA; S, of the weight and
// of
//         sums, is f32 for bf16, else T.
#pragma once

#include "kernels/tensor/context.h"

namespace sluice {

struct RmsNormForward {
  Tensor x;     // in  [N, C]  T
  Tensor w;     // in  [C]     S
  Tensor y;     // out [N, C]  T
  Tensor rstd;  // out [N]     S  kept for backward
  double eps;
};

struct RmsNormBackward {
  Tensor x;     // in  [N, C]  T
  Tensor w;     // in  [C]     S
  Tensor rstd;  // in  [N]     S
  Tensor dy;    // in  [N, C]  T
  Grad dx;      // out [N, C]  T
  Grad dw;      // out [C]     S  summed over blocks of rows in a fixed order
  Tensor y{};   // out [N, C]  T  optional: that of forward once more, to the bit
};

// Both return once the work is queued on ctx.stream. Both throw sluice::Error on a broken contract.
void rmsnorm_forward(const Context& ctx, const RmsNormForward& a);
void rmsnorm_backward(const Context& ctx, const RmsNormBackward& a);

// Rows whose part of dw is summed on its own; the parts are then added in order.
constexpr int64_t kRmsNormBlockRows = 16;
constexpr int64_t kRmsNormCudaRows = 32;

}  // namespace sluice
