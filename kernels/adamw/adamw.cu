// kernels/adamw/adamw.cu -- one pass over the four arrays; what changes from step to step is read
// from the step state in the GPU's memory.
#include "kernels/adamw/adamw.h"
#include "kernels/base/cuda_check.h"
#include "kernels/device/vec.cuh"

namespace sluice::cuda {

constexpr int kThreads = 256;

struct Numbers {
  double lr_scale, beta1, beta2;
  float c1, c2, eps, decay;  // c = 1 - beta
};

__global__ void __launch_bounds__(kThreads)
    adamw_kernel(float* p, const float* grad, float* m, float* v, int64_t n, const StepState* state,
                 Numbers k) {
  if (state->skip) return;
  const float lr = float(double(state->lr) * k.lr_scale), scale = state->grad_scale;
  const float b1 = float(k.beta1), b2 = float(k.beta2);
  const float m_fix = float(1 / (1 - pow(k.beta1, double(state->step)))),
              v_fix = float(1 / (1 - pow(k.beta2, double(state->step))));
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < n;
       i += int64_t(gridDim.x) * kThreads) {
    const float g = grad[i] * scale;
    const float mi = b1 * m[i] + k.c1 * g, vi = b2 * v[i] + k.c2 * g * g;
    m[i] = mi, v[i] = vi;
    p[i] -= lr * (k.decay * p[i] + mi * m_fix / (sqrtf(vi * v_fix) + k.eps));
  }
}

void adamw(const Context& ctx, const AdamW& a) {
  const int64_t n = a.param.dim(0);
  if (n == 0) return;
  const Numbers k{
      a.lr_scale,           a.beta1, a.beta2, float(1 - a.beta1), float(1 - a.beta2), float(a.eps),
      float(a.weight_decay)};
  adamw_kernel<<<grid_for(n, kThreads), kThreads, 0, ctx.stream>>>(
      a.param.as<float>(), a.grad.as<float>(), a.m.as<float>(), a.v.as<float>(), n, a.state, k);
  SLUICE_LAUNCHED(ctx.stream);
}

}  // namespace sluice::cuda
