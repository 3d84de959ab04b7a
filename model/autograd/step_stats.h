// model/autograd/step_stats.h -- what the forward passes of a step count, for rules that act on it
// after the step.
//
// A statistic belongs to the parameter that its rule changes, so that the layer that counts and the
// rule that reads agree by ParamId. Loads of experts are the first; another statistic (the largest
// attention logit of each head, say) is another tensor here with its own accessor.
//
// Life of a step: start_step(); every micro-batch's forward adds (a tape that was told to
// count_into this, once a token even where blocks are recomputed); with several ranks the tensors
// are summed over them; the rule applies them, or not if the step is skipped. Validation counts
// nothing.
#pragma once

#include <vector>

#include "kernels/tensor/buffer.h"
#include "kernels/tensor/context.h"
#include "model/autograd/param_store.h"

namespace sluice {

class StepStats {
 public:
  // One row for every parameter of `params` with UpdateRule::expert_load.
  explicit StepStats(const ParamStore& params, Device device = Device::cpu);

  void start_step(const Context& ctx);  // zeroes everything

  // Tokens routed to each expert: [layers, E] i64, layers with experts only; none: no tensor.
  const Tensor& expert_counts() const { return expert_counts_.view(); }
  const std::vector<ParamId>& expert_biases() const { return biases_; }  // by row of it
  Tensor expert_counts(ParamId bias) const;                              // [E]: the row of one

 private:
  std::vector<ParamId> biases_;
  Buffer expert_counts_;
};

}  // namespace sluice
