// kernels/linear/linear.cpp -- the contract, checked once for every back end.
#include "kernels/linear/linear.h"

namespace sluice {

namespace cpu {
void linear_forward(const Context& ctx, const LinearForward& a);
void linear_backward(const Context& ctx, const LinearBackward& a);
}  // namespace cpu
namespace reference {
void linear_forward(const Context& ctx, const LinearForward& a);
void linear_backward(const Context& ctx, const LinearBackward& a);
}  // namespace reference

void linear_forward(const Context& ctx, const LinearForward& a) {
  const int64_t N = a.x.dim(0), D = a.x.dim(1), F = a.w.dim(0);
  check_shape(a.x, "x", {N, D}, a.x.dtype, ctx.device);
  check_shape(a.w, "w", {F, D}, a.x);
  check_shape(a.y, "y", {N, F}, a.x);
  if (ctx.mode == Mode::plan) return;
  SLUICE_DISPATCH_CPU(linear_forward, ctx, a);
}

void linear_backward(const Context& ctx, const LinearBackward& a) {
  const int64_t N = a.x.dim(0), D = a.x.dim(1), F = a.w.dim(0);
  check_shape(a.x, "x", {N, D}, a.x.dtype, ctx.device);
  check_shape(a.w, "w", {F, D}, a.x);
  check_shape(a.dy, "dy", {N, F}, a.x);
  if (a.dx) check_shape(a.dx.t, "dx", {N, D}, a.x);
  check_shape(a.dw.t, "dw", {F, D}, a.x);
  if (ctx.mode == Mode::plan) return;
  SLUICE_DISPATCH_CPU(linear_backward, ctx, a);
}

}  // namespace sluice
