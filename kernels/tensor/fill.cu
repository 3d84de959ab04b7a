// kernels/tensor/fill.cu -- a number that the launch carries: a copy would read it from the host
// when the stream gets there.
#include "kernels/base/cuda_check.h"
#include "kernels/tensor/context.h"

namespace sluice::cuda {

static __global__ void set_kernel(double* to, double value) {
  *to = value;
}

void set_scalar(const Context& ctx, double* to, double value) {
  set_kernel<<<1, 1, 0, ctx.stream>>>(to, value);
  SLUICE_LAUNCHED(ctx.stream);
}

}  // namespace sluice::cuda
