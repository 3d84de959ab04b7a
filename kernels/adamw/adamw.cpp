// kernels/adamw/adamw.cpp -- the contract, checked once for every back end.
#include "kernels/adamw/adamw.h"

namespace sluice {

namespace cuda {
void adamw(const Context& ctx, std::span<const AdamW> list);
}  // namespace cuda
namespace cpu {
void adamw(const Context& ctx, std::span<const AdamW> list);
}
namespace reference {
void adamw(const Context& ctx, std::span<const AdamW> list);
}

static void check(const Context& ctx, const AdamW& a, const AdamW& first) {
  const int64_t n = a.param.dim(0);
  check_shape(a.param, "param", {n}, first.param.dtype, ctx.device);
  check_shape(a.grad, "grad", {n}, a.param);
  const bool narrow = a.m.dtype == DType::bf16 && a.param.dtype == DType::f32;
  const DType S = narrow ? DType::bf16 : a.param.dtype;
  check_shape(a.m, "m", {n}, S, ctx.device);
  check_shape(a.v, "v", {n}, S, ctx.device);
  if (a.copy) {
    SLUICE_CHECK(ctx.device == Device::cuda, "a rounded copy is for CUDA");
    check_shape(a.copy, "copy", {n}, DType::bf16, ctx.device);
  }
  SLUICE_CHECK(a.beta1 >= 0 && a.beta1 < 1 && a.beta2 >= 0 && a.beta2 < 1, "betas are ", a.beta1,
               " and ", a.beta2);
  // An eps that f32 rounds to 0 would make 0 / 0 of an element that never had a gradient.
  const double eps = a.param.dtype == DType::f32 ? double(float(a.eps)) : a.eps;
  SLUICE_CHECK(eps > 0, "eps is ", a.eps, ", which must be above 0 in ", name(a.param.dtype));
  SLUICE_CHECK(a.state == first.state && a.beta1 == first.beta1 && a.beta2 == first.beta2 &&
                   a.eps == first.eps && a.m.dtype == first.m.dtype,
               "shards of one call have another state, betas, eps or type of m");
}

void adamw(const Context& ctx, std::span<const AdamW> list) {
  if (list.empty()) return;
  for (const AdamW& a : list) check(ctx, a, list.front());
  if (ctx.mode == Mode::plan) return;
  const StepState* state = list.front().state;
  SLUICE_CHECK(state, "no step state");
  SLUICE_CHECK(ctx.device != Device::cpu || state->skip || state->step >= 1, "step is ",
               state->step, ", expected to count from 1");
  SLUICE_DISPATCH(adamw, ctx, list);
}

}  // namespace sluice
