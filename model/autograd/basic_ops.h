// model/autograd/basic_ops.h -- token-wise operators as differentiable ops.
//
// Dims: N tokens, D and C channels, F outputs, V vocabulary. Each is one kernels/<op> pair.
#pragma once

#include "model/autograd/tape.h"

namespace sluice {

Var embedding(Tape& tape, const Tensor& tokens_N, ParamId table_VD);  // [N] i32 -> [N, D]
Var pick_rows(Tape& tape, const Var& x_ND, const Tensor& rows_n);     // [n] i32 -> [n, D], forward
Var linear(Tape& tape, const Var& x_ND, ParamId w_FD);                // x w^T: [N, F]
Var rmsnorm(Tape& tape, const Var& x_NC, ParamId w_C, double eps);    // [N, C]
Var swiglu(Tape& tape, const Var& gate_up_N2F);                       // silu(gate) * up: [N, F]
Var sigmoid_gate(Tape& tape, const Var& x_NC, const Var& gate_NC);    // x * sigmoid(gate): [N, C]
Var silu(Tape& tape, const Var& x_NC);                                // [N, C]
Var add(Tape& tape, const Var& a, const Var& b);                      // equal 2-D shapes

}  // namespace sluice
