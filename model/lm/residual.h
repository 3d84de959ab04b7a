// model/lm/residual.h -- how sub-layers read from and write to the residual stream.
//
// The state of the stream is a list of Vars that goes through every block, so that another scheme
// (a bank of earlier streams, say) is another class here and nothing else changes.
#pragma once

#include <vector>

#include "model/autograd/tape.h"

namespace sluice {

// x = x + f(x): the state is the one stream.
class SumResidual {
 public:
  using State = std::vector<Var>;

  State start(Tape& tape, const Var& embedded_ND) const;
  Var read(Tape& tape, const State& state) const;  // what the next sub-layer normalises
  void write(Tape& tape, State& state, const Var& out_ND) const;
  Var finish(Tape& tape, const State& state) const;  // before the final norm
};

}  // namespace sluice
