// data/loader/validation.cpp -- all rows in order, the last one filled up.
#include <algorithm>

#include "data/loader/loader.h"
#include "kernels/base/check.h"

namespace sluice {

ValidationSet::ValidationSet(const std::string& path, int64_t seq_len_tokens,
                             int64_t micro_batch_tokens)
    : shard_(std::make_shared<const ShardReader>(path)),
      rows_(std::make_unique<ShardRows>(shard_, seq_len_tokens, ShardRows::Last::pad)),
      L_(seq_len_tokens),
      rows_per_micro_(micro_batch_tokens / seq_len_tokens) {
  SLUICE_CHECK(micro_batch_tokens > 0 && micro_batch_tokens % L_ == 0,
               "train.micro_batch_tokens is ", micro_batch_tokens,
               ", expected a multiple of data.seq_len_tokens (", L_, ")");
  SLUICE_CHECK(rows_->count() > 0, path, " has no tokens to validate on");
}

ValidationSet::ValidationSet(const TaskConfig& task, int64_t seq_len_tokens,
                             int64_t micro_batch_tokens)
    : L_(seq_len_tokens),
      rows_per_micro_(std::max<int64_t>(1, micro_batch_tokens / seq_len_tokens)) {
  auto rows = std::make_unique<TaskRows>(task, seq_len_tokens, validation_examples_key(),
                                         task.validation_examples);
  chance_ = rows->facts().chance;
  rows_ = std::move(rows);
}

int64_t ValidationSet::micro_batches() const {
  return (rows_->count() + rows_per_micro_ - 1) / rows_per_micro_;
}

MicroBatchBuffer ValidationSet::make_buffer() const {
  return {rows_per_micro_ * L_, rows_per_micro_ * rows_->max_documents(), L_};
}

std::optional<int64_t> ValidationSet::text_bytes() const {
  return shard_ ? std::optional(shard_->text_bytes()) : std::nullopt;
}

void ValidationSet::load(int64_t micro_batch, MicroBatch& batch) const {
  SLUICE_CHECK(micro_batch >= 0 && micro_batch < micro_batches(), "micro-batch ", micro_batch,
               " of ", micro_batches());
  SLUICE_CHECK(batch.tokens.dim(0) == rows_per_micro_ * L_, "a micro-batch of ",
               batch.tokens.dim(0), " tokens, expected ", rows_per_micro_ * L_);
  std::vector<int32_t> ends;
  batch.valid_tokens = 0;
  for (int64_t slot = 0; slot < rows_per_micro_; ++slot) {
    const int64_t row = micro_batch * rows_per_micro_ + slot;
    if (row < rows_->count())
      batch.valid_tokens += rows_->load(row, slot, batch, ends);
    else
      rows_->load_empty(slot, batch, ends);
  }
  set_documents(ends, batch);
}

}  // namespace sluice
