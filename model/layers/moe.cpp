// model/layers/moe.cpp -- route, dispatch, two grouped products, combine.
#include "model/layers/moe.h"

#include "model/autograd/basic_ops.h"
#include "model/autograd/moe_ops.h"

namespace sluice {

Moe::Moe(const ParamScope& scope, const LayerConfig& config)
    : config_(config.moe),
      D_(config.hidden_size),
      route_{.score = config.moe.moe_router_activation_func == "softmax" ? RouterScore::softmax
                                                                         : RouterScore::sigmoid,
             .renormalize = config.moe.moe_renormalize,
             .scale = config.moe.routed_scaling_factor} {
  const int64_t E = config_.num_experts, F = config_.moe_intermediate_size;
  router_ = scope.matrix("router", E, D_);
  bias_ = scope.expert_bias("e_score_correction_bias", E);
  const ParamScope experts = scope.sub("experts");
  gate_up_proj_ =
      experts.expert_matrices("gate_up_proj", E, 2 * F, D_, {{"gate_proj", F}, {"up_proj", F}});
  down_proj_ = experts.expert_matrices("down_proj", E, D_, F);
  if (config_.num_shared_experts == 0) return;
  LayerConfig shared = config;
  shared.intermediate_size = config_.num_shared_experts * F;
  shared_ = std::make_unique<GatedMlp>(scope.sub("shared_experts"), shared);
}

Var Moe::forward(Tape& tape, const Var& x_ND) const {
  const Var logits_NE = router_logits(tape, x_ND, router_);
  const Routing r = route(tape, logits_NE, bias_, config_.num_experts_per_token, route_);
  const Var gate_up_R2F = grouped_linear(tape, dispatch(tape, x_ND, r), gate_up_proj_, r);
  const Var ys_RD = grouped_linear(tape, swiglu(tape, gate_up_R2F), down_proj_, r);
  const Var y_ND = combine(tape, ys_RD, r);
  return shared_ ? add(tape, y_ND, shared_->forward(tape, x_ND)) : y_ND;
}

// What a token meets: its k experts, not all of them.
LayerCost Moe::cost() const {
  const double D = double(D_), F = double(config_.moe_intermediate_size);
  const double experts = double(config_.num_experts_per_token) * 3 * D * F;
  const double router = double(config_.num_experts) * D;
  return {.matmul = 2 * (router + experts) + (shared_ ? shared_->cost().matmul : 0), .sequence = 0};
}

}  // namespace sluice
