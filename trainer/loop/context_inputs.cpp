// trainer/loop/context_inputs.cpp -- rows cut evenly; the documents of all say who has what.
#include "trainer/loop/context_inputs.h"

#include <algorithm>

#include "kernels/tensor/fill.h"

namespace sluice {

static Tensor on_host(std::vector<int32_t>& values) {
  return make_tensor(values.data(), DType::i32, Device::cpu, {int64_t(values.size())});
}

MicroBatch ContextInputs::plan(const MicroBatch& shape) {
  const int64_t N = shape.tokens.dim(0), S = shape.cu_seqlens.dim(0) - 1;
  if (!keys_.view() || keys_.view().dim(0) < S + 1) {
    documents_ = Buffer(DType::i32, {S + 1});
    with_halo_ = Buffer(DType::i32, {S + 2}, device_);
    keys_ = Buffer(DType::i32, {S + 1}, device_);
  }
  std::vector<int32_t> one(size_t(S + 1), int32_t(N));  // a document of all tokens
  one[0] = 0;
  SequenceCut cut(one, group_.size(), group_.rank());
  std::fill(cut.keys.begin() + 1, cut.keys.end(), int32_t(N));
  cut.keys_begin = 0;
  const int64_t each = cut.rows();
  exchange_.emplace(group_, std::move(cut), halo_, with_halo_.view().rows(0, S + 2),
                    keys_.view().rows(0, S + 1));
  MicroBatch piece = shape;
  piece.tokens = shape.tokens.rows(0, each);
  piece.targets = shape.targets.rows(0, each);
  return piece;
}

MicroBatch ContextInputs::cut(const Context& ctx, const MicroBatch& batch) {
  const int64_t S = batch.cu_seqlens.dim(0) - 1;
  SLUICE_CHECK(keys_.view() && S < keys_.view().dim(0), S, " documents were not planned");
  SequenceCut cut({batch.cu_seqlens.as<int32_t>(), size_t(S + 1)}, group_.size(), group_.rank());
  const Tensor with_halo = with_halo_.view().rows(0, S + 2), keys = keys_.view().rows(0, S + 1);
  std::vector<int32_t> before = cut.documents_with_halo(halo_);
  copy_in_order(ctx, on_host(before), with_halo);
  copy_in_order(ctx, on_host(cut.keys), keys);
  MicroBatch piece = batch;
  piece.tokens = batch.tokens.rows(cut.mine().begin, cut.mine().tokens);
  piece.targets = batch.targets.rows(cut.mine().begin, cut.mine().tokens);
  piece.cu_seqlens = documents_.view().rows(0, S + 1);
  std::copy(cut.documents.begin(), cut.documents.end(), piece.cu_seqlens.as<int32_t>());
  exchange_.emplace(group_, std::move(cut), halo_, with_halo, keys);
  return piece;
}

}  // namespace sluice
