// trainer/loop/step_results.h -- what the host reads of a step: asked for when the step is queued,
// read when it is done, while the GPU works on the next one.
#pragma once

#include "kernels/device/pinned.h"
#include "kernels/device/stream.h"
#include "model/autograd/step_stats.h"
#include "trainer/loop/device.h"

namespace sluice {

class StepResults {
 public:
  StepResults(Device device, const StepStats& stats);

  // Queues the copies; they go with a captured update.
  void copy_from(const Context& ctx, const DeviceState& state, const StepStats& stats);
  void queued(const Context& ctx) { there_.record(ctx); }  // after the copies
  void wait() const { there_.wait(); }                     // until they are there

  const StepState& state() const { return *static_cast<const StepState*>(memory_.view().data); }
  const Tensor& expert_counts() const { return expert_counts_; }  // as StepStats has them, or none
  const Tensor& max_logits() const { return max_logits_; }

 private:
  PinnedBuffer memory_;
  Tensor expert_counts_, max_logits_;
  Event there_;
};

}  // namespace sluice
