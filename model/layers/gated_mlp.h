// model/layers/gated_mlp.h -- the dense channel mixer: y = W_down (silu(W_gate x) * W_up x).
//
// Source: Shazeer, 2020, arXiv:2002.05202.
#pragma once

#include "model/layers/config.h"
#include "model/layers/layer.h"

namespace sluice {

class GatedMlp : public Ffn {
 public:
  // Registers gate_up_proj [2F, D] (gate rows, then up rows) and down_proj [D, F].
  GatedMlp(const ParamScope& scope, const LayerConfig& config);
  Var forward(Tape& tape, const Var& x_ND) const override;
  LayerCost cost() const override;

 private:
  int64_t D_, F_;
  ParamId gate_up_proj_, down_proj_;
};

}  // namespace sluice
