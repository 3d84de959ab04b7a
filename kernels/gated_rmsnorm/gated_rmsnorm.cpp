// kernels/gated_rmsnorm/gated_rmsnorm.cpp -- the contract, checked once for every back end.
#include "kernels/gated_rmsnorm/gated_rmsnorm.h"

namespace sluice {

namespace cuda {
void gated_rmsnorm_forward(const Context& ctx, const GatedRmsNormForward& a);
void gated_rmsnorm_backward(const Context& ctx, const GatedRmsNormBackward& a, Tensor parts);
}  // namespace cuda
namespace cpu {
void gated_rmsnorm_forward(const Context& ctx, const GatedRmsNormForward& a);
void gated_rmsnorm_backward(const Context& ctx, const GatedRmsNormBackward& a, Tensor parts);
}  // namespace cpu
namespace reference {
void gated_rmsnorm_forward(const Context& ctx, const GatedRmsNormForward& a);
void gated_rmsnorm_backward(const Context& ctx, const GatedRmsNormBackward& a, Tensor parts);
}  // namespace reference

void gated_rmsnorm_forward(const Context& ctx, const GatedRmsNormForward& a) {
  const int64_t N = a.x.dim(0), H = a.x.dim(1), C = a.x.dim(2);
  check_shape(a.x, "x", {N, H, C}, a.x.dtype, ctx.device);
  if (a.gate) check_shape(a.gate, "gate", {N, H, C}, a.x);
  check_shape(a.w, "w", {C}, sum_type(a.x.dtype), ctx.device);
  check_shape(a.y, "y", {N, H, C}, a.x);
  check_shape(a.rstd, "rstd", {N, H}, a.w);
  SLUICE_CHECK(a.eps > 0, "eps is ", a.eps);
  if (ctx.mode == Mode::plan) return;
  SLUICE_DISPATCH(gated_rmsnorm_forward, ctx, a);
}

void gated_rmsnorm_backward(const Context& ctx, const GatedRmsNormBackward& a) {
  const int64_t N = a.x.dim(0), H = a.x.dim(1), C = a.x.dim(2);
  check_shape(a.x, "x", {N, H, C}, a.x.dtype, ctx.device);
  if (a.gate) check_shape(a.gate, "gate", {N, H, C}, a.x);
  check_shape(a.w, "w", {C}, sum_type(a.x.dtype), ctx.device);
  check_shape(a.rstd, "rstd", {N, H}, a.w);
  check_shape(a.dy, "dy", {N, H, C}, a.x);
  check_shape(a.dx.t, "dx", {N, H, C}, a.x);
  if (a.gate) check_shape(a.dgate.t, "dgate", {N, H, C}, a.x);
  SLUICE_CHECK(a.gate || !a.dgate, "dgate is ", to_string(a.dgate.t), " and there is no gate");
  check_shape(a.dw.t, "dw", {C}, a.w);
  if (a.y) check_shape(a.y, "y", {N, H, C}, a.x);
  const int64_t rows = ctx.device == Device::cuda ? kGatedRmsNormCudaRows : kGatedRmsNormBlockRows;
  const ArenaTensor parts = scratch(ctx, a.w.dtype, {(N + rows - 1) / rows, C});
  if (ctx.mode == Mode::plan) return;
  SLUICE_DISPATCH(gated_rmsnorm_backward, ctx, a, parts.view());
}

}  // namespace sluice
