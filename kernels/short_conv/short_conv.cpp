// kernels/short_conv/short_conv.cpp -- the contract, checked once for every back end.
#include "kernels/short_conv/short_conv.h"

namespace sluice {

namespace cuda {
void short_conv_forward(const Context& ctx, const ShortConvForward& a);
void short_conv_backward(const Context& ctx, const ShortConvBackward& a, Tensor dw_parts);
}  // namespace cuda
namespace cpu {
void short_conv_forward(const Context& ctx, const ShortConvForward& a);
void short_conv_backward(const Context& ctx, const ShortConvBackward& a, Tensor dw_parts);
}  // namespace cpu
namespace reference {
void short_conv_forward(const Context& ctx, const ShortConvForward& a);
void short_conv_backward(const Context& ctx, const ShortConvBackward& a, Tensor dw_parts);
}  // namespace reference

template <class Args>
static void check_inputs(const Context& ctx, const Args& a) {
  const int64_t N = a.x.dim(0), C = a.x.dim(1), W = a.w.dim(1);
  check_shape(a.x, "x", {N, C}, a.x.dtype, ctx.device);
  check_shape(a.w, "w", {C, W}, a.x);
  SLUICE_CHECK(W >= 1 && W <= kShortConvMaxWidth, "width is ", W, ", expected 1 to ",
               kShortConvMaxWidth);
  const int64_t documents = check_cu_seqlens(ctx, a.cu_seqlens, N);
  if (a.initial_state) check_shape(a.initial_state, "initial_state", {documents, C, W - 1}, a.x);
}

void short_conv_forward(const Context& ctx, const ShortConvForward& a) {
  check_inputs(ctx, a);
  const int64_t N = a.x.dim(0), C = a.x.dim(1), W = a.w.dim(1), S = a.cu_seqlens.dim(0) - 1;
  check_shape(a.y, "y", {N, C}, a.x);
  if (a.final_state) check_shape(a.final_state, "final_state", {S, C, W - 1}, a.x);
  if (ctx.mode == Mode::plan) return;
  SLUICE_DISPATCH(short_conv_forward, ctx, a);
}

void short_conv_backward(const Context& ctx, const ShortConvBackward& a) {
  check_inputs(ctx, a);
  const int64_t N = a.x.dim(0), C = a.x.dim(1), W = a.w.dim(1), S = a.cu_seqlens.dim(0) - 1;
  check_shape(a.dy, "dy", {N, C}, a.x);
  if (a.dfinal_state) check_shape(a.dfinal_state, "dfinal_state", {S, C, W - 1}, a.x);
  check_shape(a.dx.t, "dx", {N, C}, a.x);
  check_shape(a.dw.t, "dw", {C, W}, sum_type(a.x.dtype), ctx.device);
  if (a.dinitial_state) check_shape(a.dinitial_state.t, "dinitial_state", {S, C, W - 1}, a.x);
  const int64_t rows = ctx.device == Device::cuda ? kShortConvCudaRows : kShortConvRows;
  const ArenaTensor dw_parts = scratch(ctx, sum_type(a.x.dtype), {(N + rows - 1) / rows, W, C});
  if (ctx.mode == Mode::plan) return;
  SLUICE_DISPATCH(short_conv_backward, ctx, a, dw_parts.view());
}

}  // namespace sluice
