// model/autograd/sequence_ops.cpp -- what was gathered forward goes back where it came from.
#include "model/autograd/sequence_ops.h"

#include "kernels/add/add.h"
#include "kernels/cast/cast.h"
#include "kernels/tensor/fill.h"

namespace sluice {
namespace {

void put(const Context& ctx, const Tensor& from, const Grad& to) {
  if (to.add)
    add_forward(ctx, {.a = to.t, .b = from, .y = to.t});
  else
    copy_in_order(ctx, from, to.t);
}

Tensor flat(const Tensor& t) {
  return t.reshape({t.numel()});
}

}  // namespace

Var with_rows_before(Tape& tape, const Var& x, const SequenceExchange& exchange) {
  const int64_t N = x.value.dim(0), C = x.value.dim(1), halo = exchange.halo();
  const Var y = tape.make(x.value.dtype, {halo + N, C});
  exchange.rows_before(tape.ctx(), x.value, y.value.rows(0, halo));
  copy_in_order(tape.ctx(), x.value, y.value.rows(halo, N));
  tape.record("rows_before", y, [&tape, &exchange, x = tape.keep(x), N, C, halo, id = y.id] {
    const Tensor dy = tape.upstream(id);
    const Grad dx = tape.grad(x);
    put(tape.ctx(), dy.rows(halo, N), dx);
    const ArenaTensor after = scratch(tape.ctx(), dy.dtype, {halo, C});
    exchange.gradient_of_rows_before(tape.ctx(), dy.rows(0, halo), after);
    const int64_t there = std::min(halo, N);  // fewer: nobody comes after this rank
    put(tape.ctx(), after.view().rows(halo - there, there), {dx.t.rows(N - there, there), true});
  });
  return y;
}

Var without_rows_before(Tape& tape, const Var& y, const SequenceExchange& exchange) {
  const int64_t halo = exchange.halo(), N = y.value.dim(0) - halo;
  const Var x = tape.make(y.value.dtype, {N, y.value.dim(1)});
  copy_in_order(tape.ctx(), y.value.rows(halo, N), x.value);
  tape.record(
      "own_rows", x,
      [&tape, y = tape.keep(y), N, halo, id = x.id] {
        const Grad dy = tape.grad(y);
        SLUICE_CHECK(!dy.add, "rows with a halo have another consumer");
        zero(tape.ctx(), dy.t.rows(0, halo));
        copy_in_order(tape.ctx(), tape.upstream(id), dy.t.rows(halo, N));
      },
      [&tape, y = tape.keep(y), N, halo](const Tensor& out) {
        copy_in_order(tape.ctx(), tape.value(y).rows(halo, N), out);
      });
  return x;
}

Var gather_key_rows(Tape& tape, const Var& x, const SequenceExchange& exchange) {
  const int64_t N = x.value.dim(0), C = x.value.dim(1), rows = exchange.key_rows();
  const Var y = tape.make(x.value.dtype, {rows, C});
  exchange.key_rows(tape.ctx(), x.value, y.value);
  tape.record("key_rows", y, [&tape, &exchange, x = tape.keep(x), N, C, rows, id = y.id] {
    const Context& ctx = tape.ctx();
    const Tensor dy = tape.upstream(id);
    const Grad dx = tape.grad(x);
    const DType sums = sum_type(dy.dtype);
    const ArenaTensor mine = scratch(ctx, sums, {N, C});
    if (sums == dy.dtype) {
      exchange.gradient_of_key_rows(ctx, dy, mine);
      return put(ctx, mine, dx);
    }
    const ArenaTensor wide = scratch(ctx, sums, {rows, C});
    const ArenaTensor narrow = scratch(ctx, dy.dtype, {N, C});
    widen(ctx, {.from = flat(dy), .to = flat(wide)});
    exchange.gradient_of_key_rows(ctx, wide, mine);
    cast(ctx, {.from = flat(mine), .to = flat(narrow)});
    put(ctx, narrow, dx);
  });
  return y;
}

}  // namespace sluice
