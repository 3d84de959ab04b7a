// model/autograd/loss_op.cpp -- keeps one number a token; the logits are made again in backward.
#include "model/autograd/loss_op.h"

#include "kernels/linear_cross_entropy/linear_cross_entropy.h"

namespace sluice {

Var linear_cross_entropy(Tape& tape, const Var& h, ParamId w, const Tensor& targets,
                         const Tensor& loss_scale) {
  const Var loss = tape.make(DType::f64, {1});
  const Var lse = tape.make(h.value.dtype, {h.value.dim(0)});
  linear_cross_entropy_forward(tape.ctx(), {.h = h.value,
                                            .w = tape.params().value(w),
                                            .targets = targets,
                                            .loss_scale = loss_scale,
                                            .loss = loss.value,
                                            .lse = lse.value,
                                            .nll = {}});
  tape.record("linear_cross_entropy", loss, [&tape, h, w, targets, loss_scale, lse, id = loss.id] {
    linear_cross_entropy_backward(tape.ctx(), {.h = h.value,
                                               .w = tape.params().value(w),
                                               .targets = targets,
                                               .loss_scale = loss_scale,
                                               .lse = lse.value,
                                               .dloss = tape.upstream(id),
                                               .dh = tape.grad(h),
                                               .dw = tape.params().grad(w)});
  });
  return loss;
}

}  // namespace sluice
