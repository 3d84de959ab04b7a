// model/autograd/step_stats.h -- what the forward passes of a step count, for rules that act on it
// after the step.
//
// A statistic belongs to the parameter that its rule changes, so that the layer that counts and the
// rule that reads agree by ParamId. Loads of experts, and the largest attention logit of each head.
//
// Life of a step: start_step(); every micro-batch's forward adds (a tape that was told to
// count_into this, once a token even where blocks are recomputed); with several ranks the loads are
// summed over them, and of the logits the largest taken; the rule applies them, or not if the step
// is skipped. Validation counts nothing.
#pragma once

#include <vector>

#include "kernels/tensor/buffer.h"
#include "kernels/tensor/context.h"
#include "model/autograd/param_store.h"

namespace sluice {

class StepStats {
 public:
  // One row for every parameter of `params` with UpdateRule::expert_load, and one for every group
  // that has parameters with heads.
  explicit StepStats(const ParamStore& params, Device device = Device::cpu);

  int64_t bytes() const;                // of its memory on the device
  void start_step(const Context& ctx);  // no tokens, and no logit yet: -infinity

  // Tokens routed to each expert: [layers, E] i64, layers with experts only; none: no tensor.
  const Tensor& expert_counts() const { return expert_counts_.view(); }
  const std::vector<ParamId>& expert_biases() const { return biases_; }  // by row of it
  Tensor expert_counts(ParamId bias) const;                              // [E]: the row of one

  // Largest scaled logit of each head: [layers, H] f32, layers with attention only; none: no
  // tensor.
  const Tensor& max_logits() const { return max_logits_.view(); }
  // [H]: the row of the layer that this parameter with heads belongs to.
  Tensor max_logits(ParamId id) const;

 private:
  std::vector<ParamId> biases_;
  Buffer expert_counts_;
  std::vector<int> attention_;  // by row of max_logits_: its group
  std::vector<int> groups_;     // by ParamId::index
  Buffer max_logits_, no_logits_;
};

}  // namespace sluice
