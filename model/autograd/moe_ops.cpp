// model/autograd/moe_ops.cpp -- the capture list of each closure is what its backward reads.
#include "model/autograd/moe_ops.h"

#include "kernels/linear/linear.h"
#include "kernels/moe/dispatch/dispatch.h"
#include "kernels/moe/grouped_linear/grouped_linear.h"
#include "model/autograd/step_stats.h"

namespace sluice {

Tensor RouterChoices::find(ParamId bias) const {
  const auto found = experts_.find(bias.index);
  return found == experts_.end() ? Tensor{} : found->second.view();
}

void RouterChoices::keep(ParamId bias, const Tensor& experts) {
  Buffer& b = experts_[bias.index] = Buffer(experts);
  copy(experts, b.view());
}

// What gradients of tokens are, whatever the value's own type.
static Tensor gradient_like(const Tape& tape, Tensor value) {
  if (tape.ctx().device == Device::cuda) value.dtype = DType::bf16;
  return value;
}

Var router_logits(Tape& tape, const Var& x, ParamId w) {
  const Tensor weight = tape.params().value(w);
  const Var z = tape.make(sum_type(x.value.dtype), {x.value.dim(0), weight.dim(0)});
  linear_forward(tape.ctx(), {.x = x.value, .w = weight, .y = z.value});
  tape.record("router", z, [&tape, x = tape.keep(x), w, id = z.id] {
    linear_backward(tape.ctx(), {.x = tape.value(x),
                                 .w = tape.params().value(w),
                                 .dy = tape.upstream(id),
                                 .dx = tape.grad(x),
                                 .dw = tape.params().grad(w)});
  });
  return z;
}

Routing route(Tape& tape, const Var& logits, ParamId bias, int64_t k, const RouteParams& params) {
  const int64_t N = logits.value.dim(0), E = logits.value.dim(1);
  const Var scores = tape.make(logits.value.dtype, {N, E});
  const Var experts = tape.make(DType::i32, {N, k});
  Routing r{.weights = tape.make(logits.value.dtype, {N, k}),
            .place = tape.make(DType::i32, {N, k}),
            .offsets = tape.make(DType::i32, {E + 1})};
  RouterChoices* choices = tape.choices();
  const Tensor given = choices ? choices->find(bias) : Tensor{};
  route_forward(tape.ctx(), {.logits = logits.value,
                             .bias = tape.params().value(bias),
                             .given = given,
                             .scores = scores.value,
                             .experts = experts.value,
                             .weights = r.weights.value,
                             .params = params});
  if (choices && !given) choices->keep(bias, experts.value);
  dispatch_plan(tape.ctx(),
                {.experts = experts.value,
                 .place = r.place.value,
                 .offsets = r.offsets.value,
                 .counts = tape.stats() ? tape.stats()->expert_counts(bias) : Tensor{}});
  tape.record("route", r.weights,
              [&tape, logits_id = logits.id, scores, experts, params, id = r.weights.id] {
                route_backward(tape.ctx(),
                               {.scores = scores.value,
                                .experts = experts.value,
                                .dweights = tape.upstream(id),
                                .dlogits = tape.grad(logits_id, gradient_like(tape, scores.value)),
                                .params = params});
              });
  return r;
}

Var dispatch(Tape& tape, const Var& x, const Routing& r) {
  const Var xs = tape.make(x.value.dtype, {r.place.value.numel(), x.value.dim(1)});
  dispatch_forward(tape.ctx(), {.x = x.value, .place = r.place.value, .xs = xs.value});
  // The shape of x is captured for backward, not its value.
  tape.record(
      "dispatch", xs,
      [&tape, x_id = x.id, like = x.value, place = r.place, id = xs.id] {
        dispatch_backward(
            tape.ctx(),
            {.dxs = tape.upstream(id), .place = place.value, .dx = tape.grad(x_id, like)});
      },
      [&tape, x = tape.keep(x), place = r.place](const Tensor& out) {
        dispatch_forward(tape.ctx(), {.x = tape.value(x), .place = place.value, .xs = out});
      });
  return xs;
}

Var grouped_linear(Tape& tape, const Var& x, ParamId w, const Routing& r) {
  const Tensor weight = tape.params().value(w);
  const Var y = tape.make(x.value.dtype, {x.value.dim(0), weight.dim(1)});
  grouped_linear_forward(tape.ctx(),
                         {.x = x.value, .w = weight, .offsets = r.offsets.value, .y = y.value});
  tape.record("grouped_linear", y, [&tape, x = tape.keep(x), w, offsets = r.offsets, id = y.id] {
    grouped_linear_backward(tape.ctx(), {.x = tape.value(x),
                                         .w = tape.params().value(w),
                                         .offsets = offsets.value,
                                         .dy = tape.upstream(id),
                                         .dx = tape.grad(x),
                                         .dw = tape.params().grad(w)});
  });
  return y;
}

Var combine(Tape& tape, const Var& ys, const Routing& r) {
  const Var y = tape.make(ys.value.dtype, {r.place.value.dim(0), ys.value.dim(1)});
  combine_forward(
      tape.ctx(),
      {.ys = ys.value, .weights = r.weights.value, .place = r.place.value, .y = y.value});
  tape.record("combine", y,
              [&tape, ys = tape.keep(ys), weights = r.weights, place = r.place, id = y.id] {
                combine_backward(tape.ctx(), {.ys = tape.value(ys),
                                              .weights = weights.value,
                                              .place = place.value,
                                              .dy = tape.upstream(id),
                                              .dys = tape.grad(ys),
                                              .dweights = tape.grad(weights)});
              });
  return y;
}

}  // namespace sluice
