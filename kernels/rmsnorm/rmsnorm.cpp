// kernels/rmsnorm/rmsnorm.cpp -- the contract, checked once for every back end.
#include "kernels/rmsnorm/rmsnorm.h"

namespace sluice {

#define SLUICE_RMSNORM_BACKEND(backend)                                              \
  namespace backend {                                                                \
  void rmsnorm_forward(const Context& ctx, const RmsNormForward& a);                 \
  void rmsnorm_backward(const Context& ctx, const RmsNormBackward& a, Tensor parts); \
  }
SLUICE_RMSNORM_BACKEND(cuda)
SLUICE_RMSNORM_BACKEND(cpu)
SLUICE_RMSNORM_BACKEND(reference)
#undef SLUICE_RMSNORM_BACKEND

void rmsnorm_forward(const Context& ctx, const RmsNormForward& a) {
  const int64_t N = a.x.dim(0), C = a.x.dim(1);
  check_shape(a.x, "x", {N, C}, a.x.dtype, ctx.device);
  check_shape(a.w, "w", {C}, sum_type(a.x.dtype), ctx.device);
  check_shape(a.y, "y", {N, C}, a.x);
  check_shape(a.rstd, "rstd", {N}, a.w);
  SLUICE_CHECK(a.eps > 0, "eps is ", a.eps);
  if (ctx.mode == Mode::plan) return;
  SLUICE_DISPATCH(rmsnorm_forward, ctx, a);
}

void rmsnorm_backward(const Context& ctx, const RmsNormBackward& a) {
  const int64_t N = a.x.dim(0), C = a.x.dim(1);
  check_shape(a.x, "x", {N, C}, a.x.dtype, ctx.device);
  check_shape(a.w, "w", {C}, sum_type(a.x.dtype), ctx.device);
  check_shape(a.rstd, "rstd", {N}, a.w);
  check_shape(a.dy, "dy", {N, C}, a.x);
  check_shape(a.dx.t, "dx", {N, C}, a.x);
  check_shape(a.dw.t, "dw", {C}, a.w);
  if (a.y) check_shape(a.y, "y", {N, C}, a.x);
  const int64_t rows = ctx.device == Device::cuda ? kRmsNormCudaRows : kRmsNormBlockRows;
  const ArenaTensor parts = scratch(ctx, a.w.dtype, {(N + rows - 1) / rows, C});
  if (ctx.mode == Mode::plan) return;
  SLUICE_DISPATCH(rmsnorm_backward, ctx, a, parts.view());
}

}  // namespace sluice
