// optim/expert_bias.cu -- a CTA a router, in integers up to the sign.
#include "kernels/base/cuda_check.h"
#include "kernels/device/reduce.cuh"
#include "kernels/tensor/context.h"
#include "kernels/tensor/step_state.h"

namespace sluice::cuda {

constexpr int kThreads = 256;

// b[i] is the bias of expert begin + i, i < n.
__global__ void __launch_bounds__(kThreads)
    update_kernel(float* b, int n, int begin, const int64_t* load, int E, float rate,
                  const StepState* state) {
  __shared__ int64_t all;
  if (state->skip) return;
  int64_t part = 0;
  for (int e = threadIdx.x; e < E; e += kThreads) part += load[e];
  const int64_t sum = block_sum(part);
  if (threadIdx.x == 0) all = sum;
  __syncthreads();
  for (int i = threadIdx.x; i < n; i += kThreads) {
    const int64_t excess = E * load[begin + i] - all;
    b[i] += excess < 0 ? rate : excess > 0 ? -rate : 0;
  }
}

void update_expert_bias(const Context& ctx, const Tensor& b, int64_t begin, const Tensor& counts,
                        double rate, const StepState* state) {
  update_kernel<<<1, kThreads, 0, ctx.stream>>>(b.as<float>(), int(b.dim(0)), int(begin),
                                                counts.as<int64_t>(), int(counts.dim(0)),
                                                float(rate), state);
  SLUICE_LAUNCHED(ctx.stream);
}

}  // namespace sluice::cuda
