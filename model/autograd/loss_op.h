// model/autograd/loss_op.h -- head and loss in one: kernels/linear_cross_entropy on the tape.
#pragma once

#include "model/autograd/tape.h"

namespace sluice {

// loss [1] f64 = loss_scale * sum over valid n of -log softmax(h w^T)[n, targets[n]].
// h [N, D], w [V, D], targets [N] i32 (kIgnoreIndex: not valid), loss_scale [1] f64.
Var linear_cross_entropy(Tape& tape, const Var& h_ND, ParamId w_VD, const Tensor& targets_N,
                         const Tensor& loss_scale);

}  // namespace sluice
