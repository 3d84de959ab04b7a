// model/autograd/sequence_ops.h -- rows of the sequence that other ranks have. Every rank records
// the same ops in the same order; the exchange outlives the tape.
//
// Dims: N tokens of this rank, C channels.
#pragma once

#include "kernels/comm/sequence_exchange.h"
#include "model/autograd/tape.h"

namespace sluice {

// x [N, C] behind the exchange's halo of rows before it: [halo + N, C]; and the N rows of that.
Var with_rows_before(Tape& tape, const Var& x_NC, const SequenceExchange& exchange);
Var without_rows_before(Tape& tape, const Var& y, const SequenceExchange& exchange);

// The rows of x [N, C], here and on the ranks before, that this rank's keys are: [key_rows(), C].
Var gather_key_rows(Tape& tape, const Var& x_NC, const SequenceExchange& exchange);

}  // namespace sluice
