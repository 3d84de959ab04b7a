// trainer/loop/layer_fields.h -- the event "layers" of metrics.jsonl: figures of each layer.
#pragma once

#include "model/autograd/layer_probe.h"
#include "model/autograd/step_stats.h"
#include "trainer/metrics/jsonl.h"

namespace sluice {

// Of one probed forward pass, by what the layer is:
//   a recurrence   layers.N.decay_half_life_p10, _p50, _p90   tokens
//                  layers.N.beta_mean (none of Mamba2), layers.N.state_norm (root mean square)
//   attention      layers.N.max_attention_logit
//   experts        layers.N.expert_load                       largest load / mean load
MetricFields layer_fields(const ParamStore& params, const LayerProbe& probe,
                          const StepStats& stats);

}  // namespace sluice
