// kernels/adamw/adamw.cpp -- the contract, checked once for every back end.
#include "kernels/adamw/adamw.h"

namespace sluice {

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
  SLUICE_CHECK(a.beta1 >= 0 && a.beta1 < 1 && a.beta2 >= 0 && a.beta2 < 1 && a.eps > 0, "betas are ",
               a.beta1, " and ", a.beta2, ", eps is ", a.eps);
  if (ctx.mode == Mode::plan) return;
  SLUICE_CHECK(a.state, "no step state");
  SLUICE_DISPATCH_CPU(adamw, ctx, a);
}

}  // namespace sluice
