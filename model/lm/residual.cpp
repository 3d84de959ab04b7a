// model/lm/residual.cpp -- the sum.
#include "model/lm/residual.h"

#include "model/autograd/basic_ops.h"

namespace sluice {

SumResidual::State SumResidual::start(Tape&, const Var& embedded) const {
  return {embedded};
}
Var SumResidual::read(Tape&, const State& state) const {
  return state.front();
}
void SumResidual::write(Tape& tape, State& state, const Var& out) const {
  state.front() = add(tape, state.front(), out);
}
Var SumResidual::finish(Tape&, const State& state) const {
  return state.front();
}

}  // namespace sluice
