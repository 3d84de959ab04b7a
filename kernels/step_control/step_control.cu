// kernels/step_control/step_control.cu -- one thread each.
#include "kernels/base/cuda_check.h"
#include "kernels/step_control/step_control.h"

namespace sluice::cuda {

static __global__ void begin_kernel(StepState* state, float lr, int32_t stop) {
  state->lr = lr;
  state->stop = stop;
  state->cross_entropy = state->z_loss = 0;
}
static __global__ void add_kernel(const double* terms, StepState* state) {
  state->cross_entropy += terms[0];
  state->z_loss += terms[1];
}
static __global__ void decide_kernel(StepState* state) {
  if (!isfinite(state->cross_entropy + state->z_loss)) state->skip = 1;
  if (!state->skip) ++state->step;
}

void begin_step(const Context& ctx, StepState* state, float lr, int32_t stop) {
  begin_kernel<<<1, 1, 0, ctx.stream>>>(state, lr, stop);
  SLUICE_LAUNCHED(ctx.stream);
}
void add_loss(const Context& ctx, const double* terms, StepState* state) {
  add_kernel<<<1, 1, 0, ctx.stream>>>(terms, state);
  SLUICE_LAUNCHED(ctx.stream);
}
void decide(const Context& ctx, StepState* state) {
  decide_kernel<<<1, 1, 0, ctx.stream>>>(state);
  SLUICE_LAUNCHED(ctx.stream);
}

}  // namespace sluice::cuda
