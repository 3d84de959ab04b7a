// model/layers/identity_layer.h -- a mixer that mixes nothing: the control of an ablation.
#pragma once

#include "model/layers/config.h"
#include "model/layers/layer.h"

namespace sluice {

class IdentityLayer : public Mixer {
 public:
  IdentityLayer(const ParamScope&, const LayerConfig&) {}
  Var forward(Tape&, const Var& x_ND, const Sequences&, const MixerCache*) const override {
    return x_ND;
  }
  MixerCache make_cache(DType, Device, int64_t, int64_t) const override { return {}; }
  LayerCost cost(int64_t) const override { return {}; }
};

}  // namespace sluice
