// model/autograd/loss_op.h -- head and loss in one: kernels/linear_cross_entropy on the tape.
#pragma once

#include "model/autograd/tape.h"

namespace sluice {

struct LossInputs {
  Tensor targets;     // [N] i32, kIgnoreIndex: not valid
  Tensor loss_scale;  // [1] f64
  double z_loss = 0;  // coefficient of lse^2, lse = log sum exp of a token's logits
  Tensor terms{};     // [2] f64, optional, written: cross entropy and z-loss, whose sum the loss is
  Tensor nll{};       // [N] as h, optional, written: the cross entropy of each token, unscaled
  Tensor predicted{};  // [N] i32, optional, written: each token's likeliest target
};

// loss [1] f64 = loss_scale * sum over valid n of -log softmax(h w^T)[n, targets[n]], and z_loss.
Var linear_cross_entropy(Tape& tape, const Var& h_ND, ParamId w_VD, const LossInputs& in);

}  // namespace sluice
