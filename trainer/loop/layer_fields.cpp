// trainer/loop/layer_fields.cpp -- names, and the worst of what a layer's heads or experts have.
#include "trainer/loop/layer_fields.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "kernels/tensor/buffer.h"
#include "trainer/metrics/expert_load.h"

namespace sluice {

static Buffer on_host(const Tensor& t, int64_t rows, int64_t columns) {
  Buffer host(t.dtype, {rows, columns});
  copy(t, host.view());
  return host;
}

MetricFields layer_fields(const ParamStore& params, const LayerProbe& probe,
                          const StepStats& stats) {
  MetricFields fields;
  const auto add = [&](int group, const char* name, double value) {
    fields.emplace_back(params.group_name(group) + "." + name, value);
  };
  for (const LayerProbe::Recurrence& r : probe.recurrences()) {
    add(r.group, "decay_half_life_p10", r.half_life_p10);
    add(r.group, "decay_half_life_p50", r.half_life_p50);
    add(r.group, "decay_half_life_p90", r.half_life_p90);
    if (!std::isnan(r.beta_mean)) add(r.group, "beta_mean", r.beta_mean);
    add(r.group, "state_norm", r.state_rms);
  }
  std::set<int> attention;  // several parameters of a layer share its logits
  for (int i = 0; i < params.size(); ++i) {
    const ParamSpec& spec = params.spec({i});
    if (spec.heads.count == 0 || !attention.insert(spec.group).second) continue;
    const Buffer logits = on_host(stats.max_logits({i}), 1, spec.heads.count);
    const float* s = logits.view().as<float>();
    add(spec.group, "max_attention_logit", *std::max_element(s, s + spec.heads.count));
  }
  for (const ParamId bias : stats.expert_biases()) {
    const Tensor counts = stats.expert_counts(bias);
    add(params.spec(bias).group, "expert_load",
        expert_load(on_host(counts, 1, counts.dim(0)).view()).worst);
  }
  return fields;
}

}  // namespace sluice
