// kernels/swiglu/swiglu.cpp -- the contract, checked once for every back end.
#include "kernels/swiglu/swiglu.h"

namespace sluice {

namespace cuda {
void swiglu_forward(const Context& ctx, const SwigluForward& a);
void swiglu_backward(const Context& ctx, const SwigluBackward& a);
}  // namespace cuda
namespace cpu {
void swiglu_forward(const Context& ctx, const SwigluForward& a);
void swiglu_backward(const Context& ctx, const SwigluBackward& a);
}  // namespace cpu
namespace reference {
void swiglu_forward(const Context& ctx, const SwigluForward& a);
void swiglu_backward(const Context& ctx, const SwigluBackward& a);
}  // namespace reference

void swiglu_forward(const Context& ctx, const SwigluForward& a) {
  const int64_t N = a.gate_up.dim(0), F = a.y.dim(1);
  check_shape(a.gate_up, "gate_up", {N, 2 * F}, a.gate_up.dtype, ctx.device);
  check_shape(a.y, "y", {N, F}, a.gate_up);
  if (ctx.mode == Mode::plan) return;
  SLUICE_DISPATCH(swiglu_forward, ctx, a);
}

void swiglu_backward(const Context& ctx, const SwigluBackward& a) {
  const int64_t N = a.gate_up.dim(0), F = a.dy.dim(1);
  check_shape(a.gate_up, "gate_up", {N, 2 * F}, a.gate_up.dtype, ctx.device);
  check_shape(a.dy, "dy", {N, F}, a.gate_up);
  check_shape(a.dgate_up.t, "dgate_up", {N, 2 * F}, a.gate_up);
  if (a.y) check_shape(a.y, "y", {N, F}, a.gate_up);
  if (ctx.mode == Mode::plan) return;
  SLUICE_DISPATCH(swiglu_backward, ctx, a);
}

}  // namespace sluice
