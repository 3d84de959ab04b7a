// model/autograd/step_stats.cpp -- one buffer a statistic.
#include "model/autograd/step_stats.h"

#include <algorithm>
#include <limits>

#include "kernels/tensor/fill.h"

namespace sluice {

StepStats::StepStats(const ParamStore& params, Device device) {
  int64_t E = 0, H = 0;
  for (int i = 0; i < params.size(); ++i) {
    const ParamSpec& spec = params.spec({i});
    groups_.push_back(spec.group);
    if (spec.heads.count > 0) {
      SLUICE_CHECK(H == 0 || spec.heads.count == H, spec.name, " has ", spec.heads.count,
                   " heads, layers before it ", H);
      H = spec.heads.count;
      if (std::find(attention_.begin(), attention_.end(), spec.group) == attention_.end())
        attention_.push_back(spec.group);
    }
    if (spec.rule != UpdateRule::expert_load) continue;
    SLUICE_CHECK(biases_.empty() || spec.numel() == E, spec.name, " has ", spec.numel(),
                 " experts, layers before it ", E);
    E = spec.numel();
    biases_.push_back({i});
  }
  if (!biases_.empty()) expert_counts_ = Buffer(DType::i64, {int64_t(biases_.size()), E}, device);
  if (attention_.empty()) return;
  const Buffer none(DType::f32, {int64_t(attention_.size()), H});
  std::fill_n(none.view().as<float>(), none.view().numel(),
              -std::numeric_limits<float>::infinity());
  max_logits_ = Buffer(DType::f32, {none.view().dim(0), H}, device);
  no_logits_ = Buffer(max_logits_.view());
  copy(none.view(), no_logits_.view());
}

int64_t StepStats::bytes() const {
  const auto of = [](const Buffer& b) { return b.view() ? b.view().bytes() : 0; };
  return of(expert_counts_) + of(max_logits_) + of(no_logits_);
}

void StepStats::start_step(const Context& ctx) {
  if (expert_counts_.view()) zero(ctx, expert_counts_.view());
  if (max_logits_.view()) copy_async(ctx, no_logits_.view(), max_logits_.view());
}

Tensor StepStats::expert_counts(ParamId bias) const {
  for (size_t i = 0; i < biases_.size(); ++i)
    if (biases_[i].index == bias.index)
      return expert_counts_.view().rows(int64_t(i), 1).reshape({expert_counts_.view().dim(1)});
  SLUICE_CHECK(false, "parameter ", bias.index, " has no expert counts");
  return {};
}

Tensor StepStats::max_logits(ParamId id) const {
  for (size_t i = 0; i < attention_.size(); ++i)
    if (attention_[i] == groups_.at(size_t(id.index)))
      return max_logits_.view().rows(int64_t(i), 1).reshape({max_logits_.view().dim(1)});
  SLUICE_CHECK(false, "parameter ", id.index, " has no attention logits");
  return {};
}

}  // namespace sluice
