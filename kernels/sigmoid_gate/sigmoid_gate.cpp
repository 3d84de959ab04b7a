// kernels/sigmoid_gate/sigmoid_gate.cpp -- the contract, checked once for every back end.
#include "kernels/sigmoid_gate/sigmoid_gate.h"

namespace sluice {

namespace cuda {
void sigmoid_gate_forward(const Context& ctx, const SigmoidGateForward& a);
void sigmoid_gate_backward(const Context& ctx, const SigmoidGateBackward& a);
}  // namespace cuda
namespace cpu {
void sigmoid_gate_forward(const Context& ctx, const SigmoidGateForward& a);
void sigmoid_gate_backward(const Context& ctx, const SigmoidGateBackward& a);
}  // namespace cpu
namespace reference {
void sigmoid_gate_forward(const Context& ctx, const SigmoidGateForward& a);
void sigmoid_gate_backward(const Context& ctx, const SigmoidGateBackward& a);
}  // namespace reference

void sigmoid_gate_forward(const Context& ctx, const SigmoidGateForward& a) {
  const int64_t N = a.x.dim(0), C = a.x.dim(1);
  check_shape(a.x, "x", {N, C}, a.x.dtype, ctx.device);
  check_shape(a.gate, "gate", {N, C}, a.x);
  check_shape(a.y, "y", {N, C}, a.x);
  if (ctx.mode == Mode::plan) return;
  SLUICE_DISPATCH(sigmoid_gate_forward, ctx, a);
}

void sigmoid_gate_backward(const Context& ctx, const SigmoidGateBackward& a) {
  const int64_t N = a.x.dim(0), C = a.x.dim(1);
  check_shape(a.x, "x", {N, C}, a.x.dtype, ctx.device);
  check_shape(a.gate, "gate", {N, C}, a.x);
  check_shape(a.dy, "dy", {N, C}, a.x);
  check_shape(a.dx.t, "dx", {N, C}, a.x);
  check_shape(a.dgate.t, "dgate", {N, C}, a.x);
  if (ctx.mode == Mode::plan) return;
  SLUICE_CHECK(a.dx.t.data != a.dgate.t.data || a.dgate.add || a.x.numel() == 0,
               "dx and dgate are one memory, and dgate does not add");
  SLUICE_DISPATCH(sigmoid_gate_backward, ctx, a);
}

}  // namespace sluice
