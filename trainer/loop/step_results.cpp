// trainer/loop/step_results.cpp -- one piece of pinned memory: the state, then the statistics.
#include "trainer/loop/step_results.h"

#include "kernels/tensor/fill.h"

namespace sluice {

static int64_t bytes_of(const Tensor& t) {
  return t ? (t.bytes() + 63) / 64 * 64 : 0;
}
static constexpr int64_t kState = (sizeof(StepState) + 63) / 64 * 64;

static Tensor on_host(Tensor like, char*& at) {
  if (!like) return like;
  like.device = Device::cpu;
  like.data = at;
  at += bytes_of(like);
  return like;
}

StepResults::StepResults(Device device, const StepStats& stats)
    : memory_(device, kState + bytes_of(stats.expert_counts()) + bytes_of(stats.max_logits())),
      there_(device) {
  char* at = static_cast<char*>(memory_.view().data) + kState;
  expert_counts_ = on_host(stats.expert_counts(), at);
  max_logits_ = on_host(stats.max_logits(), at);
}

void StepResults::copy_from(const Context& ctx, const DeviceState& state, const StepStats& stats) {
  copy_async(ctx, state.bytes(), memory_.view().rows(0, sizeof(StepState)));
  if (expert_counts_) copy_async(ctx, stats.expert_counts(), expert_counts_);
  if (max_logits_) copy_async(ctx, stats.max_logits(), max_logits_);
}

}  // namespace sluice
