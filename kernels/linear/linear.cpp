// kernels/linear/linear.cpp -- the contract, checked once for every back end.
#include "kernels/linear/linear.h"

#include "kernels/gemm/cuda_gemm.h"

namespace sluice {

namespace cuda {
void linear_forward(const Context& ctx, const LinearForward& a, const Tensor& workspace);
void linear_backward(const Context& ctx, const LinearBackward& a, const Tensor& workspace);
}  // namespace cuda
namespace cpu {
void linear_forward(const Context& ctx, const LinearForward& a, const Tensor& workspace);
void linear_backward(const Context& ctx, const LinearBackward& a, const Tensor& workspace);
}  // namespace cpu
namespace reference {
void linear_forward(const Context& ctx, const LinearForward& a, const Tensor& workspace);
void linear_backward(const Context& ctx, const LinearBackward& a, const Tensor& workspace);
}  // namespace reference

void linear_forward(const Context& ctx, const LinearForward& a) {
  const int64_t N = a.x.dim(0), D = a.x.dim(1), F = a.w.dim(0);
  check_shape(a.x, "x", {N, D}, a.x.dtype, ctx.device);
  check_shape(a.w, "w", {F, D}, a.x);
  const bool wide = a.y.dtype == sum_type(a.x.dtype);
  check_shape(a.y, "y", {N, F}, wide ? a.y.dtype : a.x.dtype, ctx.device);
  const ArenaTensor workspace = gemm_workspace(ctx);
  if (ctx.mode == Mode::plan) return;
  SLUICE_DISPATCH(linear_forward, ctx, a, workspace.view());
}

void linear_backward(const Context& ctx, const LinearBackward& a) {
  const int64_t N = a.dy.dim(0), D = a.w.dim(1), F = a.w.dim(0);
  check_shape(a.w, "w", {F, D}, a.w.dtype, ctx.device);
  check_shape(a.dy, "dy", {N, F}, a.w);
  if (a.dx) check_shape(a.dx.t, "dx", {N, D}, a.w);
  SLUICE_CHECK(a.dx || a.dw, "neither dx nor dw is asked for");
  if (a.dw) check_shape(a.x, "x", {N, D}, a.w);
  if (a.dw) check_shape(a.dw.t, "dw", {F, D}, sum_type(a.w.dtype), ctx.device);
  const ArenaTensor workspace = gemm_workspace(ctx);
  if (ctx.mode == Mode::plan) return;
  SLUICE_DISPATCH(linear_backward, ctx, a, workspace.view());
}

}  // namespace sluice
