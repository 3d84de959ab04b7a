// kernels/adamw/adamw.cpp -- the contract, checked once for every back end.
#include "kernels/adamw/adamw.h"

namespace sluice {

namespace cuda {
void adamw(const Context& ctx, const AdamW& a);
}  // namespace cuda
namespace cpu {
void adamw(const Context& ctx, const AdamW& a);
}
namespace reference {
void adamw(const Context& ctx, const AdamW& a);
}

void adamw(const Context& ctx, const AdamW& a) {
  const int64_t n = a.param.dim(0);
  check_shape(a.param, "param", {n}, a.param.dtype, ctx.device);
  check_shape(a.grad, "grad", {n}, a.param);
  check_shape(a.m, "m", {n}, a.param);
  check_shape(a.v, "v", {n}, a.param);
  SLUICE_CHECK(a.beta1 >= 0 && a.beta1 < 1 && a.beta2 >= 0 && a.beta2 < 1, "betas are ", a.beta1,
               " and ", a.beta2);
  // An eps that f32 rounds to 0 would make 0 / 0 of an element that never had a gradient.
  const double eps = a.param.dtype == DType::f32 ? double(float(a.eps)) : a.eps;
  SLUICE_CHECK(eps > 0, "eps is ", a.eps, ", which must be above 0 in ", name(a.param.dtype));
  if (ctx.mode == Mode::plan) return;
  SLUICE_CHECK(a.state, "no step state");
  SLUICE_CHECK(ctx.device != Device::cpu || a.state->step >= 1, "step is ", a.state->step,
               ", expected to count from 1");
  SLUICE_DISPATCH(adamw, ctx, a);
}

}  // namespace sluice
