// model/autograd/step_stats.cpp -- one buffer a statistic.
#include "model/autograd/step_stats.h"

#include <algorithm>

#include "kernels/tensor/fill.h"

namespace sluice {

StepStats::StepStats(const ParamStore& params, Device device) {
  int64_t E = 0;
  for (int i = 0; i < params.size(); ++i) {
    const ParamSpec& spec = params.spec({i});
    if (spec.rule != UpdateRule::expert_load) continue;
    SLUICE_CHECK(biases_.empty() || spec.numel() == E, spec.name, " has ", spec.numel(),
                 " experts, layers before it ", E);
    E = spec.numel();
    biases_.push_back({i});
  }
  if (!biases_.empty()) expert_counts_ = Buffer(DType::i64, {int64_t(biases_.size()), E}, device);
}

void StepStats::start_step(const Context& ctx) {
  if (expert_counts_.view()) zero(ctx, expert_counts_.view());
}

Tensor StepStats::expert_counts(ParamId bias) const {
  for (size_t i = 0; i < biases_.size(); ++i)
    if (biases_[i].index == bias.index)
      return expert_counts_.view().rows(int64_t(i), 1).reshape({expert_counts_.view().dim(1)});
  SLUICE_CHECK(false, "parameter ", bias.index, " has no expert counts");
  return {};
}

}  // namespace sluice
