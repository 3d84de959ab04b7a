// optim/qk_clip.cpp -- row by row; heads below the threshold are not touched.
#include "optim/qk_clip.h"

#include <cmath>

#include "kernels/tensor/float_dispatch.h"

namespace sluice {

namespace cuda {
void scale_rows(const Context& ctx, const Shard& s, const ParamSpec& spec, const Tensor& max_logits,
                double threshold, const StepState* state);
}

// gamma of a head; 1: as it is.
static double gamma_of(const Tensor& max_logits, int64_t head, double threshold) {
  const double S = max_logits.as<float>()[head];
  return S > threshold ? threshold / S : 1;
}

template <class T>
static void scale_rows(const Shard& s, const ParamSpec& spec, const Tensor& max_logits,
                       double threshold) {
  const int64_t columns = spec.shape[1], rows = spec.shape[0] / spec.heads.count;  // of a head
  T* w = s.master.as<T>();
  for (int64_t i = 0; i < s.master.dim(0); ++i) {
    const int64_t row = (s.begin + i) / columns, of_head = row % rows;
    if (of_head >= spec.heads.nope + spec.heads.rope) continue;  // values
    const double gamma = gamma_of(max_logits, row / rows, threshold);
    if (gamma < 1) w[i] *= T(of_head < spec.heads.nope ? std::sqrt(gamma) : gamma);
  }
}

void qk_clip(const Context& ctx, const ParamStore& params, const StepStats& stats, double threshold,
             const StepState* state) {
  if (ctx.mode == Mode::plan) return;
  if (ctx.device == Device::cpu && state->skip) return;
  for (const Shard& s : params.shards()) {
    const ParamSpec& spec = params.spec(s.id);
    if (spec.heads.count == 0) continue;
    const Tensor logits = stats.max_logits(s.id);
#ifdef SLUICE_CUDA_BUILD
    if (ctx.device == Device::cuda) {
      cuda::scale_rows(ctx, s, spec, logits, threshold, state);
      continue;
    }
#endif
    for_float_type(s.master, [&]<class T>(T) { scale_rows<T>(s, spec, logits, threshold); });
  }
}

int64_t heads_over(const Tensor& max_logits, double threshold) {
  int64_t over = 0;
  for (int64_t i = 0; max_logits && i < max_logits.numel(); ++i)
    over += max_logits.as<float>()[i] > threshold;
  return over;
}

}  // namespace sluice
