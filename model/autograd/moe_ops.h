// model/autograd/moe_ops.h -- the pieces of a mixture of experts as differentiable ops.
//
// Dims: N tokens, E experts, k choices a token, R = N k routed rows (sorted by expert), D inputs,
// F outputs. Integers are Vars for their memory alone; they have no gradient.
#pragma once

#include <map>

#include "kernels/moe/route/route.h"
#include "kernels/tensor/buffer.h"
#include "model/autograd/tape.h"

namespace sluice {

struct Routing {
  Var weights;  // [N, k]
  Var place;    // [N, k] i32: the routed row of each choice
  Var offsets;  // [E + 1] i32: where each expert's routed rows begin
};

// x w^T for route(): the sums as they are, f32 where x is bf16. Their gradient is of x's type.
Var router_logits(Tape& tape, const Var& x_ND, ParamId w_ED);  // [N, E]
// Chooses k experts a token by logits and bias (which gets no gradient), sorts the choices, and
// adds the experts' loads to the tape's StepStats.
Routing route(Tape& tape, const Var& logits_NE, ParamId bias_E, int64_t k,
              const RouteParams& params);
Var dispatch(Tape& tape, const Var& x_ND, const Routing& r);                       // [R, D]
Var grouped_linear(Tape& tape, const Var& x_RD, ParamId w_EFD, const Routing& r);  // [R, F]
Var combine(Tape& tape, const Var& ys_RD, const Routing& r);                       // [N, D]

// The experts that each router chose in a first pass, for passes that must choose the same: finite
// differences, to which a choice that flips is a jump. See Tape::replay_choices.
class RouterChoices {
 public:
  Tensor find(ParamId bias) const;  // [N, k] i32, or no tensor if that router has not chosen yet
  void keep(ParamId bias, const Tensor& experts_Nk);

 private:
  std::map<int, Buffer> experts_;  // by index of the bias
};

}  // namespace sluice
