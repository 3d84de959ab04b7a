// model/layers/gdn_layer.h -- Gated DeltaNet as a layer, and Mamba2's recurrence in its place.
//
//   q, k, v of linear_attention.h
//   z = W_a x,  b = W_b x                  one decay logit a value head; b of the delta rule only
//   o = GDN(q, k, v; z, A_log, dt_bias, b)
//   y = gated output of linear_attention.h
//
// So it is the KDA layer with a scalar gate from one matrix: what a comparison of the two compares.
// mamba2 writes v without the prediction, as strongly as it forgets (kernels/gdn); Mamba2's skip
// connection and its single key head are left out. Sources: arXiv:2412.06464, 2405.21060.
#pragma once

#include "model/layers/linear_attention.h"

namespace sluice {

class GdnLayer : public Mixer {
 public:
  GdnLayer(const ParamScope& scope, const LayerConfig& config, bool delta_rule);
  Var forward(Tape& tape, const Var& x_ND, const Sequences& seq,
              const MixerCache* cache) const override;
  MixerCache make_cache(DType dtype, Device device, int64_t slots,
                        int64_t max_tokens) const override;
  LayerCost cost(int64_t context_tokens) const override;

 private:
  KdaConfig config_;
  bool delta_rule_;
  int64_t D_;
  ConvQkv qkv_;
  ParamId agb_proj_;         // [HV + gate rows + HV, D]: decay, output gate, beta; mamba2: no beta
  ParamId A_log_, dt_bias_;  // [HV], [HV]
  GatedOutput output_;
};

}  // namespace sluice
