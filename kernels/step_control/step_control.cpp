// kernels/step_control/step_control.cpp -- on the CPU the state is the host's own.
#include "kernels/step_control/step_control.h"

#include <cmath>

namespace sluice {

namespace cuda {
void begin_step(const Context& ctx, StepState* state, float lr, int32_t stop);
void add_loss(const Context& ctx, const double* terms, StepState* state);
void decide(const Context& ctx, StepState* state);
}  // namespace cuda
namespace cpu {
static void begin_step(const Context&, StepState* state, float lr, int32_t stop) {
  state->lr = lr;
  state->stop = stop;
  state->cross_entropy = state->z_loss = 0;
}
static void add_loss(const Context&, const double* terms, StepState* state) {
  state->cross_entropy += terms[0];
  state->z_loss += terms[1];
}
static void decide(const Context&, StepState* state) {
  if (!std::isfinite(state->cross_entropy + state->z_loss)) state->skip = 1;
  if (!state->skip) ++state->step;
}
}  // namespace cpu
namespace reference = cpu;  // one formula on one number

void begin_step(const Context& ctx, StepState* state, float lr, int32_t stop) {
  if (ctx.mode == Mode::plan) return;
  SLUICE_CHECK(state, "no step state");
  SLUICE_DISPATCH(begin_step, ctx, state, lr, stop);
}

void add_loss(const Context& ctx, const Tensor& terms, StepState* state) {
  check_shape(terms, "terms", {2}, DType::f64, ctx.device);
  if (ctx.mode == Mode::plan) return;
  SLUICE_CHECK(state, "no step state");
  SLUICE_DISPATCH(add_loss, ctx, terms.as<double>(), state);
}

void decide(const Context& ctx, StepState* state) {
  if (ctx.mode == Mode::plan) return;
  SLUICE_CHECK(state, "no step state");
  SLUICE_DISPATCH(decide, ctx, state);
}

}  // namespace sluice
