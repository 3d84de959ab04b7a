// kernels/linear/cuda.cpp -- three products.
#include "kernels/gemm/cuda_gemm.h"
#include "kernels/linear/linear.h"

namespace sluice::cuda {

void linear_rowwise(const Context& ctx, const LinearForward& a);  // cuda_rowwise.cu

void linear_forward(const Context& ctx, const LinearForward& a, const Tensor& workspace) {
  if (ctx.mode == Mode::batch_invariant) return linear_rowwise(ctx, a);
  ctx.gemm->run(ctx, Transpose::no, a.x, Transpose::yes, a.w, {a.y}, workspace);
}

void linear_backward(const Context& ctx, const LinearBackward& a, const Tensor& workspace) {
  if (a.dw) ctx.gemm->run(ctx, Transpose::yes, a.dy, Transpose::no, a.x, a.dw, workspace);
  if (a.dx) ctx.gemm->run(ctx, Transpose::no, a.dy, Transpose::no, a.w, a.dx, workspace);
}

}  // namespace sluice::cuda
