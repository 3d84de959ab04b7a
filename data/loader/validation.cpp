// data/loader/validation.cpp -- all rows in order, the last one filled up.
#include <algorithm>

#include "data/loader/loader.h"

namespace sluice {

ValidationSet::ValidationSet(const std::string& path, int64_t seq_len_tokens,
                             int64_t micro_batch_tokens)
    : source_(path, seq_len_tokens),
      L_(seq_len_tokens),
      rows_per_micro_(micro_batch_tokens / seq_len_tokens) {}

int64_t ValidationSet::micro_batches() const {
  return (source_.all_rows() + rows_per_micro_ - 1) / rows_per_micro_;
}

MicroBatchBuffer ValidationSet::make_buffer() const {
  return {rows_per_micro_ * L_, rows_per_micro_ * source_.max_documents()};
}

void ValidationSet::load(int64_t micro_batch, MicroBatch& batch) const {
  std::vector<int32_t> ends;
  batch.valid_tokens = 0;
  for (int64_t slot = 0; slot < rows_per_micro_; ++slot) {
    const int64_t row = micro_batch * rows_per_micro_ + slot;
    batch.valid_tokens += source_.load(row < source_.all_rows() ? row : -1, slot, batch, ends);
  }
  int32_t* cu = batch.cu_seqlens.as<int32_t>();
  cu[0] = 0;
  for (int64_t d = 0; d + 1 < batch.cu_seqlens.dim(0); ++d)
    cu[d + 1] = d < int64_t(ends.size()) ? ends[size_t(d)] : int32_t(batch.tokens.dim(0));
}

}  // namespace sluice
