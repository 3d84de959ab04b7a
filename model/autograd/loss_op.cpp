// model/autograd/loss_op.cpp -- loss and gradients in one pass over the logits.
#include "model/autograd/loss_op.h"

#include "kernels/linear_cross_entropy/linear_cross_entropy.h"

namespace sluice {

// Nothing comes between this loss and what a step minimizes, so d(loss) = 1 is known before: the
// gradients are made while the logits are there, not with logits made again in the backward pass.
Var linear_cross_entropy(Tape& tape, const Var& h, ParamId w, const LossInputs& in) {
  const Var loss = tape.make(DType::f64, {1});
  const Var lse = tape.make(sum_type(h.value.dtype), {h.value.dim(0)});
  LinearCrossEntropyForward a{.h = h.value,
                              .w = tape.params().value(w),
                              .targets = in.targets,
                              .loss_scale = in.loss_scale,
                              .loss = loss.value,
                              .terms = in.terms,
                              .lse = lse.value,
                              .nll = in.nll,
                              .predicted = in.predicted,
                              .z_loss = in.z_loss};
  const int group = tape.params().spec(w).group;
  if (tape.recording()) {
    tape.params().acquire(group, Pass::backward, tape.ctx());
    const Grad dh = tape.grad(h);
    SLUICE_CHECK(!dh.add, "the loss is not the last that reads its input");
    a.dh = dh.t;
    a.dw = tape.params().grad(w);
  }
  linear_cross_entropy_forward(tape.ctx(), a);
  if (tape.recording()) tape.params().release(group, Pass::backward, tape.ctx());
  tape.record("linear_cross_entropy", loss, [&tape, id = loss.id] {
    SLUICE_CHECK(tape.is_loss(id), "the gradients are those of d(loss) = 1, and this is not it");
  });
  return loss;
}

}  // namespace sluice
