// model/layers/moe.h -- the sparse channel mixer: k of E small gated MLPs a token, and shared ones.
//
//   y = sum over the chosen e of w_e Expert_e(x)  +  Shared(x)
//   Expert_e(x) = W_down,e (silu(W_gate,e x) * W_up,e x);  w and the choice: kernels/moe/route
//
// The selection bias is a parameter that no gradient reaches: after each step it moves by
// bias_update_rate against the load (optim/expert_bias.h).
//
// Source: DeepSeek-V3, arXiv:2412.19437, as in Kimi Linear, arXiv:2510.26692. Dims: D model width,
// E experts, F moe_intermediate_size.
#pragma once

#include <memory>

#include "kernels/moe/route/route.h"
#include "model/layers/config.h"
#include "model/layers/gated_mlp.h"
#include "model/layers/layer.h"

namespace sluice {

class Moe : public Ffn {
 public:
  // Registers router [E, D], e_score_correction_bias [E], experts.gate_up_proj [E, 2F, D],
  // experts.down_proj [E, D, F], and shared_experts, one gated MLP of num_shared_experts * F.
  Moe(const ParamScope& scope, const LayerConfig& config);
  Var forward(Tape& tape, const Var& x_ND) const override;
  LayerCost cost() const override;

 private:
  MoeConfig config_;
  int64_t D_;
  RouteParams route_;
  ParamId router_, bias_, gate_up_proj_, down_proj_;
  std::unique_ptr<GatedMlp> shared_;  // null: none
};

}  // namespace sluice
