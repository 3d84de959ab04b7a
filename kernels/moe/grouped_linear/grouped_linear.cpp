// kernels/moe/grouped_linear/grouped_linear.cpp -- the contract, checked once for every back end.
#include "kernels/moe/grouped_linear/grouped_linear.h"

namespace sluice {

namespace cuda {
void grouped_linear_forward(const Context& ctx, const GroupedLinearForward& a);
void grouped_linear_backward(const Context& ctx, const GroupedLinearBackward& a);
}  // namespace cuda
namespace cpu {
void grouped_linear_forward(const Context& ctx, const GroupedLinearForward& a);
void grouped_linear_backward(const Context& ctx, const GroupedLinearBackward& a);
}  // namespace cpu
namespace reference {
void grouped_linear_forward(const Context& ctx, const GroupedLinearForward& a);
void grouped_linear_backward(const Context& ctx, const GroupedLinearBackward& a);
}  // namespace reference

static void check_offsets(const Context& ctx, const Tensor& offsets, int64_t E, int64_t R) {
  check_shape(offsets, "offsets", {E + 1}, DType::i32, ctx.device);
  check_cu_seqlens(ctx, offsets, R, "offsets");
}

void grouped_linear_forward(const Context& ctx, const GroupedLinearForward& a) {
  const int64_t R = a.x.dim(0), D = a.x.dim(1), E = a.w.dim(0), F = a.w.dim(1);
  check_shape(a.x, "x", {R, D}, a.x.dtype, ctx.device);
  check_shape(a.w, "w", {E, F, D}, a.x);
  check_shape(a.y, "y", {R, F}, a.x);
  SLUICE_CHECK(a.w.dense(), "w has gaps between rows");
  check_offsets(ctx, a.offsets, E, R);
  if (ctx.mode == Mode::plan) return;
  SLUICE_DISPATCH(grouped_linear_forward, ctx, a);
}

void grouped_linear_backward(const Context& ctx, const GroupedLinearBackward& a) {
  const int64_t R = a.x.dim(0), D = a.x.dim(1), E = a.w.dim(0), F = a.w.dim(1);
  check_shape(a.x, "x", {R, D}, a.x.dtype, ctx.device);
  check_shape(a.w, "w", {E, F, D}, a.x);
  check_shape(a.dy, "dy", {R, F}, a.x);
  check_shape(a.dx.t, "dx", {R, D}, a.x);
  check_shape(a.dw.t, "dw", {E, F, D}, sum_type(a.x.dtype), ctx.device);
  SLUICE_CHECK(a.w.dense() && a.dw.t.dense(), "w or dw has gaps between rows");
  check_offsets(ctx, a.offsets, E, R);
  if (ctx.mode == Mode::plan) return;
  SLUICE_DISPATCH(grouped_linear_backward, ctx, a);
}

}  // namespace sluice
