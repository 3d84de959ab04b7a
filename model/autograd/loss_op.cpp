// model/autograd/loss_op.cpp -- keeps one number a token; the logits are made again in backward.
#include "model/autograd/loss_op.h"

#include "kernels/linear_cross_entropy/linear_cross_entropy.h"

namespace sluice {

Var linear_cross_entropy(Tape& tape, const Var& h, ParamId w, const LossInputs& in) {
  const Var loss = tape.make(DType::f64, {1});
  const Var lse = tape.make(sum_type(h.value.dtype), {h.value.dim(0)});
  linear_cross_entropy_forward(tape.ctx(), {.h = h.value,
                                            .w = tape.params().value(w),
                                            .targets = in.targets,
                                            .loss_scale = in.loss_scale,
                                            .loss = loss.value,
                                            .terms = in.terms,
                                            .lse = lse.value,
                                            .nll = in.nll,
                                            .predicted = in.predicted,
                                            .z_loss = in.z_loss});
  tape.record("linear_cross_entropy", loss, [&tape, h, w, in, lse, id = loss.id] {
    linear_cross_entropy_backward(tape.ctx(), {.h = h.value,
                                               .w = tape.params().value(w),
                                               .targets = in.targets,
                                               .loss_scale = in.loss_scale,
                                               .lse = lse.value,
                                               .dloss = tape.upstream(id),
                                               .dh = tape.grad(h),
                                               .dw = tape.params().grad(w),
                                               .z_loss = in.z_loss});
  });
  return loss;
}

}  // namespace sluice
