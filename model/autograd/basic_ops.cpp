// model/autograd/basic_ops.cpp -- the capture list of each closure is what its backward reads.
#include "model/autograd/basic_ops.h"

#include "kernels/add/add.h"
#include "kernels/embedding/embedding.h"
#include "kernels/linear/linear.h"
#include "kernels/rmsnorm/rmsnorm.h"
#include "kernels/sigmoid_gate/sigmoid_gate.h"
#include "kernels/swiglu/swiglu.h"

namespace sluice {

Var embedding(Tape& tape, const Tensor& tokens, ParamId table) {
  const Tensor rows = tape.params().value(table);
  const Var y = tape.make(rows.dtype, {tokens.dim(0), rows.dim(1)});
  embedding_forward(tape.ctx(), {.tokens = tokens, .table = rows, .y = y.value});
  tape.record("embedding", y, [&tape, tokens, table, id = y.id] {
    embedding_backward(
        tape.ctx(),
        {.tokens = tokens, .dy = tape.upstream(id), .dtable = tape.params().grad(table)});
  });
  return y;
}

Var pick_rows(Tape& tape, const Var& x, const Tensor& rows) {
  SLUICE_CHECK(!tape.recording(), "picked rows take no gradient");
  const Var y = tape.make(x.value.dtype, {rows.dim(0), x.value.dim(1)});
  embedding_forward(tape.ctx(), {.tokens = rows, .table = x.value, .y = y.value});
  return y;
}

Var linear(Tape& tape, const Var& x, ParamId w) {
  const Tensor weight = tape.params().value(w);
  const Var y = tape.make(x.value.dtype, {x.value.dim(0), weight.dim(0)});
  linear_forward(tape.ctx(), {.x = x.value, .w = weight, .y = y.value});
  // The parameter is asked for again in backward: it may have been released and gathered elsewhere.
  const auto backward = [&tape, x = tape.keep(x), w, id = y.id] {
    const bool later = tape.waits(x);
    linear_backward(tape.ctx(), {.x = later ? Tensor{} : tape.value(x),
                                 .w = tape.params().value(w),
                                 .dy = tape.upstream(id),
                                 .dx = tape.grad(x),
                                 .dw = later ? Grad{} : tape.params().grad(w)});
    if (!later) return;
    tape.when_made(x, [&tape, w, dy = tape.hold_upstream(id)](const Tensor& made) {
      linear_backward(tape.ctx(), {.x = made,
                                   .w = tape.params().value(w),
                                   .dy = *dy,
                                   .dx = {},
                                   .dw = tape.params().grad(w)});
    });
  };
  // A product of so few terms takes about as long as reading what it makes.
  constexpr int64_t kCheapTerms = 256;
  if (x.value.dim(1) > kCheapTerms) {
    tape.record("linear", y, backward);
  } else {
    tape.record("linear", y, backward, [&tape, x = tape.keep(x), w](const Tensor& out) {
      linear_forward(tape.ctx(), {.x = tape.value(x), .w = tape.params().value(w), .y = out});
    });
  }
  return y;
}

Var rmsnorm(Tape& tape, const Var& x, ParamId w, double eps) {
  const int64_t N = x.value.dim(0), C = x.value.dim(1);
  const Var y = tape.make(x.value.dtype, {N, C});
  const Var rstd = tape.make(sum_type(x.value.dtype), {N});
  const auto forward = [&tape, w, rstd, eps](const Tensor& from, const Tensor& to) {
    rmsnorm_forward(
        tape.ctx(),
        {.x = from, .w = tape.params().value(w), .y = to, .rstd = rstd.value, .eps = eps});
  };
  forward(x.value, y.value);
  tape.record(
      "rmsnorm", y,
      [&tape, x = tape.keep(x), w, rstd, id = y.id] {
        rmsnorm_backward(tape.ctx(), {.x = tape.value(x),
                                      .w = tape.params().value(w),
                                      .rstd = rstd.value,
                                      .dy = tape.upstream(id),
                                      .dx = tape.grad(x),
                                      .dw = tape.params().grad(w),
                                      .y = tape.wanted(id)});
      },
      [&tape, forward, x = tape.keep(x)](const Tensor& out) { forward(tape.value(x), out); },
      Tape::Offer::in_backward);
  return y;
}

Var swiglu(Tape& tape, const Var& gate_up) {
  const Var y = tape.make(gate_up.value.dtype, {gate_up.value.dim(0), gate_up.value.dim(1) / 2});
  swiglu_forward(tape.ctx(), {.gate_up = gate_up.value, .y = y.value});
  tape.record(
      "swiglu", y,
      [&tape, gate_up = tape.keep(gate_up), id = y.id] {
        swiglu_backward(tape.ctx(), {.gate_up = tape.value(gate_up),
                                     .dy = tape.upstream(id),
                                     .dgate_up = tape.grad(gate_up),
                                     .y = tape.wanted(id)});
      },
      [&tape, gate_up = tape.keep(gate_up)](const Tensor& out) {
        swiglu_forward(tape.ctx(), {.gate_up = tape.value(gate_up), .y = out});
      },
      Tape::Offer::in_backward);
  return y;
}

Var sigmoid_gate(Tape& tape, const Var& x, const Var& gate) {
  const Var y = tape.make(x.value.dtype, {x.value.dim(0), x.value.dim(1)});
  sigmoid_gate_forward(tape.ctx(), {.x = x.value, .gate = gate.value, .y = y.value});
  tape.record(
      "sigmoid_gate", y,
      [&tape, x = tape.keep(x), gate = tape.keep(gate), id = y.id] {
        const Grad dx = tape.grad(x), dgate = tape.grad(gate);
        sigmoid_gate_backward(tape.ctx(), {.x = tape.value(x),
                                           .gate = tape.value(gate),
                                           .dy = tape.upstream(id),
                                           .dx = dx,
                                           .dgate = dgate});
      },
      [&tape, x = tape.keep(x), gate = tape.keep(gate)](const Tensor& out) {
        sigmoid_gate_forward(tape.ctx(), {.x = tape.value(x), .gate = tape.value(gate), .y = out});
      });
  return y;
}

Var silu(Tape& tape, const Var& x) {
  return sigmoid_gate(tape, x, x);
}

Var add(Tape& tape, const Var& a, const Var& b) {
  const Var y = tape.make(a.value.dtype, {a.value.dim(0), a.value.dim(1)});
  add_forward(tape.ctx(), {.a = a.value, .b = b.value, .y = y.value});
  // The sum's backward reads neither operand.
  tape.record("add", y, [&tape, a_id = a.id, b_id = b.id, id = y.id] {
    tape.pass_on(id, a_id);
    tape.pass_on(id, b_id);
  });
  return y;
}

}  // namespace sluice
