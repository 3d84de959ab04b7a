// data/loader/validation.cpp -- all rows in order, the last one filled up.
#include <algorithm>

#include "data/loader/loader.h"

namespace sluice {

ValidationSet::ValidationSet(const std::string& path, int64_t seq_len_tokens,
                             int64_t micro_batch_tokens)
    : source_(path, seq_len_tokens),
      L_(seq_len_tokens),
      rows_per_micro_(micro_batch_tokens / seq_len_tokens) {
  SLUICE_CHECK(micro_batch_tokens > 0 && micro_batch_tokens % L_ == 0,
               "train.micro_batch_tokens is ", micro_batch_tokens,
               ", expected a multiple of data.seq_len_tokens (", L_, ")");
  SLUICE_CHECK(source_.all_rows() > 0, path, " has no tokens to validate on");
}

int64_t ValidationSet::micro_batches() const {
  return (source_.all_rows() + rows_per_micro_ - 1) / rows_per_micro_;
}

MicroBatchBuffer ValidationSet::make_buffer() const {
  return {rows_per_micro_ * L_, rows_per_micro_ * source_.max_documents()};
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
    batch.valid_tokens += source_.load(row < source_.all_rows() ? row : -1, slot, batch, ends);
  }
  set_documents(ends, batch);
}

}  // namespace sluice
