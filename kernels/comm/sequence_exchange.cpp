// kernels/comm/sequence_exchange.cpp -- by gathering: what is exchanged is small beside the layers.
#include "kernels/comm/sequence_exchange.h"

#include "kernels/tensor/fill.h"

namespace sluice {

SequenceExchange::SequenceExchange(Comm& group, SequenceCut cut, int64_t halo,
                                   const Tensor& with_halo, const Tensor& keys)
    : group_(group), cut_(std::move(cut)), halo_(halo), with_halo_(with_halo), keys_(keys) {
  SLUICE_CHECK(cut_.rank == group.rank() && int(cut_.parts.size()) == group.size(), "cut for rank ",
               cut_.rank, " of ", cut_.parts.size(), ", this is rank ", group.rank(), " of ",
               group.size());
  const int64_t S = int64_t(cut_.documents.size()) - 1;
  check_shape(with_halo, "with_halo", {S + 2}, DType::i32, with_halo.device);
  check_shape(keys, "keys", {S + 1}, with_halo);
}

void SequenceExchange::from_all(const Context& ctx, const Tensor& own, const Tensor& all) const {
  SLUICE_CHECK(all.numel() == group_.size() * own.numel(), "own ", to_string(own), ", all ",
               to_string(all));
  if (ctx.mode == Mode::plan) return;
  group_.all_gather(own, all, {"sequence", ctx.stream});
}

void SequenceExchange::rows_before(const Context& ctx, const Tensor& x,
                                   const Tensor& before) const {
  const int64_t C = x.dim(1), n = x.dim(0), there = std::min(halo_, n);
  check_shape(before, "before", {halo_, C}, x);
  const ArenaTensor mine = scratch(ctx, x.dtype, {halo_, C});
  const ArenaTensor all = scratch(ctx, x.dtype, {group_.size() * halo_, C});
  if (ctx.mode == Mode::plan) return;
  zero(ctx, mine.view().rows(0, halo_ - there));
  copy_in_order(ctx, x.rows(n - there, there), mine.view().rows(halo_ - there, there));
  from_all(ctx, mine, all);
  if (group_.rank() == 0) return zero(ctx, before);
  copy_in_order(ctx, all.view().rows((group_.rank() - 1) * halo_, halo_), before);
}

void SequenceExchange::gradient_of_rows_before(const Context& ctx, const Tensor& d_before,
                                               const Tensor& after) const {
  const int64_t C = d_before.dim(1);
  check_shape(d_before, "d_before", {halo_, C}, after);
  const ArenaTensor all = scratch(ctx, d_before.dtype, {group_.size() * halo_, C});
  if (ctx.mode == Mode::plan) return;
  from_all(ctx, d_before, all);
  if (group_.rank() + 1 == group_.size()) return zero(ctx, after);
  copy_in_order(ctx, all.view().rows((group_.rank() + 1) * halo_, halo_), after);
}

// [P * each, ...] of all ranks, of x [n, ...].
ArenaTensor SequenceExchange::gathered(const Context& ctx, const Tensor& x) const {
  const int64_t n = x.dim(0), each = cut_.rows();
  int64_t width = 1;
  for (int d = 1; d < x.rank; ++d) width *= x.dim(d);
  ArenaTensor all = scratch(ctx, x.dtype, {group_.size() * each, width});
  if (ctx.mode == Mode::plan) return all;
  const Tensor mine = all.view().rows(group_.rank() * each, each);
  copy_in_order(ctx, x.reshape({n, width}), mine.rows(0, n));
  zero(ctx, mine.rows(n, each - n));
  from_all(ctx, mine, all);
  return all;
}

void SequenceExchange::key_rows(const Context& ctx, const Tensor& x, const Tensor& rows) const {
  check_shape(rows, "rows", {key_rows(), x.dim(1)}, x);
  const ArenaTensor all = gathered(ctx, x);
  if (ctx.mode == Mode::plan) return;
  copy_in_order(ctx, all.view().rows(cut_.keys_begin, key_rows()), rows);
}

void SequenceExchange::all_rows(const Context& ctx, const Tensor& x, const Tensor& rows) const {
  SLUICE_CHECK(rows.dim(0) == all_rows() && rows.dtype == x.dtype, "rows is ", to_string(rows));
  const ArenaTensor all = gathered(ctx, x);
  if (ctx.mode == Mode::plan) return;
  copy_in_order(ctx, all.view().rows(0, all_rows()), rows.reshape({all_rows(), all.view().dim(1)}));
}

void SequenceExchange::gradient_of_key_rows(const Context& ctx, const Tensor& d_rows,
                                            const Tensor& dx) const {
  const int64_t C = dx.dim(1), n = dx.dim(0), each = cut_.rows();
  check_shape(d_rows, "d_rows", {key_rows(), C}, dx);
  const ArenaTensor all = scratch(ctx, dx.dtype, {group_.size() * each, C});
  const ArenaTensor mine = scratch(ctx, dx.dtype, {each, C});
  if (ctx.mode == Mode::plan) return;
  zero(ctx, all.view());
  copy_in_order(ctx, d_rows, all.view().rows(cut_.keys_begin, key_rows()));
  group_.reduce_scatter(all, mine, {"sequence", ctx.stream});
  copy_in_order(ctx, mine.view().rows(0, n), dx);
}

}  // namespace sluice
