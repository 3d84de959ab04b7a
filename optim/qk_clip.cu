// optim/qk_clip.cu -- an element a thread; those of heads below the threshold are not touched.
#include "kernels/base/cuda_check.h"
#include "kernels/device/vec.cuh"
#include "optim/qk_clip.h"

namespace sluice::cuda {

constexpr int kThreads = 256;

struct HeadLayout {
  int64_t begin, n, columns, rows;  // of the shard in the parameter; rows of a head
  int64_t nope, rope;
};

static __global__ void __launch_bounds__(kThreads)
    scale_kernel(float* w, bf16* copy, const float* max_logits, double threshold, HeadLayout k,
                 const StepState* state) {
  if (state->skip) return;
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < k.n;
       i += int64_t(gridDim.x) * kThreads) {
    const int64_t row = (k.begin + i) / k.columns, of_head = row % k.rows;
    if (of_head >= k.nope + k.rope) continue;  // values
    const double largest = max_logits[row / k.rows];
    if (!(largest > threshold)) continue;
    const double gamma = threshold / largest;
    w[i] *= float(of_head < k.nope ? sqrt(gamma) : gamma);
    if (copy) copy[i] = __float2bfloat16(w[i]);
  }
}

void scale_rows(const Context& ctx, const Shard& s, const ParamSpec& spec, const Tensor& max_logits,
                double threshold, const StepState* state) {
  const HeadLayout k{s.begin,         s.master.dim(0),
                     spec.shape[1],   spec.shape[0] / spec.heads.count,
                     spec.heads.nope, spec.heads.rope};
  if (k.n == 0) return;
  scale_kernel<<<grid_for(k.n, kThreads), kThreads, 0, ctx.stream>>>(
      s.master.as<float>(), s.copy ? s.copy.as<bf16>() : nullptr, max_logits.as<float>(), threshold,
      k, state);
  SLUICE_LAUNCHED(ctx.stream);
}

}  // namespace sluice::cuda
