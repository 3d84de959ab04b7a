// model/layers/gated_mlp.cpp -- two products and an activation.
#include "model/layers/gated_mlp.h"

#include "model/autograd/basic_ops.h"

namespace sluice {

GatedMlp::GatedMlp(const ParamScope& scope, const LayerConfig& config)
    : D_(config.hidden_size),
      F_(config.intermediate_size),
      gate_up_proj_(scope.matrix("gate_up_proj", 2 * F_, D_, {{"gate_proj", F_}, {"up_proj", F_}})),
      down_proj_(scope.matrix("down_proj", D_, F_)) {}

Var GatedMlp::forward(Tape& tape, const Var& x_ND) const {
  const Var gate_up_N2F = linear(tape, x_ND, gate_up_proj_);
  const Var hidden_NF = swiglu(tape, gate_up_N2F);
  return linear(tape, hidden_NF, down_proj_);
}

LayerCost GatedMlp::cost() const {
  return {.matmul = 2.0 * 3 * double(D_ * F_), .sequence = 0};
}

}  // namespace sluice
