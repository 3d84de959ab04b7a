// optim/expert_bias.cpp -- in integers up to the sign: E * load against the sum.
#include "optim/expert_bias.h"

#include "kernels/tensor/float_dispatch.h"

namespace sluice {

namespace cuda {
void update_expert_bias(const Context& ctx, const Tensor& b, int64_t begin, const Tensor& counts,
                        double rate, const StepState* state);
}

// b[i] is the bias of expert begin + i.
template <class T>
static void update(const Tensor& b, int64_t begin, const Tensor& counts, double rate) {
  const int64_t E = counts.dim(0), *load = counts.as<int64_t>();
  int64_t sum = 0;
  for (int64_t e = 0; e < E; ++e) sum += load[e];
  for (int64_t i = 0; i < b.dim(0); ++i) {
    const int64_t excess = E * load[begin + i] - sum;
    b.as<T>()[i] += T(excess < 0 ? rate : excess > 0 ? -rate : 0);
  }
}

void update_expert_bias(const Context& ctx, const ParamStore& params, const StepStats& stats,
                        double rate, const StepState* state) {
  if (stats.expert_biases().empty()) return;
  if (ctx.mode == Mode::plan) return;
  if (ctx.device == Device::cpu && state->skip) return;
  for (const Shard& s : params.shards()) {
    if (params.spec(s.id).rule != UpdateRule::expert_load) continue;
    const Tensor counts = stats.expert_counts(s.id);
#ifdef SLUICE_CUDA_BUILD
    if (ctx.device == Device::cuda) {
      cuda::update_expert_bias(ctx, s.master, s.begin, counts, rate, state);
      continue;
    }
#endif
    for_float_type(s.master, [&]<class T>(T) { update<T>(s.master, s.begin, counts, rate); });
  }
}

}  // namespace sluice
