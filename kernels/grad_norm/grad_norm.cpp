// kernels/grad_norm/grad_norm.cpp -- the contract, checked once for every back end.
#include "kernels/grad_norm/grad_norm.h"

namespace sluice {

namespace cuda {
void grad_norm(const Context& ctx, const GradNorm& a, Tensor parts);
void clip_factor(const Context& ctx, const ClipFactor& a);
}  // namespace cuda
namespace cpu {
void grad_norm(const Context& ctx, const GradNorm& a, Tensor parts);
}  // namespace cpu
namespace reference {
void grad_norm(const Context& ctx, const GradNorm& a, Tensor parts);
void clip_factor(const Context& ctx, const ClipFactor& a);
}  // namespace reference

void grad_norm(const Context& ctx, const GradNorm& a) {
  check_shape(a.sum_of_squares, "sum_of_squares", {1}, DType::f64, ctx.device);
  int64_t parts = 0;
  for (const Tensor& g : a.grads) {
    check_shape(g, "grad", {g.dim(0)}, g.dtype, ctx.device);
    SLUICE_CHECK(g.dtype == DType::f32 || g.dtype == DType::f64, "grad is ", to_string(g),
                 ", expected f32 or f64");
    parts += (g.dim(0) + kGradNormElements - 1) / kGradNormElements;
  }
  const ArenaTensor sums = scratch(ctx, DType::f64, {parts});
  if (ctx.mode == Mode::plan) return;
  SLUICE_DISPATCH(grad_norm, ctx, a, sums.view());
}

void clip_factor(const Context& ctx, const ClipFactor& a) {
  check_shape(a.sum_of_squares, "sum_of_squares", {1}, DType::f64, ctx.device);
  SLUICE_CHECK(a.max_norm >= 0, "max_norm is ", a.max_norm);
  if (ctx.mode == Mode::plan) return;
  SLUICE_CHECK(a.state, "no step state");
#ifdef SLUICE_CUDA_BUILD
  if (ctx.device == Device::cuda) return cuda::clip_factor(ctx, a);
#endif
  reference::clip_factor(ctx, a);  // one formula on one number
}

}  // namespace sluice
