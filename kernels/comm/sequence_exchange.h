// kernels/comm/sequence_exchange.h -- what a layer needs of the tokens that other ranks have.
//
// Every rank of the group makes the same calls in the same order, whether it needs something or
// not. Dims: n = cut().mine().tokens, C channels. Tensors are dense and on the context's device;
// nothing is done in plan mode but taking scratch.
#pragma once

#include "kernels/comm/comm.h"
#include "kernels/comm/sequence_cut.h"
#include "kernels/tensor/context.h"

namespace sluice {

class SequenceExchange {
 public:
  // The lists on the device: with_halo [S + 2] i32 is cut.documents_with_halo(halo), keys [S + 1]
  // i32 is cut.keys.
  SequenceExchange(Comm& group, SequenceCut cut, int64_t halo, const Tensor& with_halo,
                   const Tensor& keys);

  const SequenceCut& cut() const { return cut_; }
  int64_t halo() const { return halo_; }
  const Tensor& with_halo() const { return with_halo_; }
  const Tensor& keys() const { return keys_; }

  // before [halo, C] = the last rows of the rank before, x [n, C] being this rank's; 0 on the
  // first.
  void rows_before(const Context& ctx, const Tensor& x, const Tensor& before) const;
  // Their gradient goes back: after [halo, C] is that of this rank's own last rows.
  void gradient_of_rows_before(const Context& ctx, const Tensor& d_before,
                               const Tensor& after) const;

  // all [key_rows(), C] = the rows of all ranks that the keys of this one are in, of x [n, C].
  int64_t key_rows() const { return cut_.keys.back(); }
  void key_rows(const Context& ctx, const Tensor& x, const Tensor& rows) const;
  // dx [n, C] = what all ranks have of it. f32 or f64; summed in the order of the ranks.
  void gradient_of_key_rows(const Context& ctx, const Tensor& d_rows, const Tensor& dx) const;

  // rows [all_rows(), ...] of all ranks, of x [n, ...].
  int64_t all_rows() const { return cut_.all; }
  void all_rows(const Context& ctx, const Tensor& x, const Tensor& rows) const;

  // all [P, ...] = `own` [...] of every rank.
  int ranks() const { return int(cut_.parts.size()); }
  void from_all(const Context& ctx, const Tensor& own, const Tensor& all) const;

 private:
  ArenaTensor gathered(const Context& ctx, const Tensor& x) const;

  Comm& group_;
  SequenceCut cut_;
  int64_t halo_;
  Tensor with_halo_, keys_;
};

}  // namespace sluice
