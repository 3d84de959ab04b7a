// data/loader/shard_rows.cpp -- rows cut from concatenated documents.
#include <algorithm>

#include "data/loader/rows.h"
#include "kernels/base/check.h"

namespace sluice {

void Rows::pad(int64_t slot, int64_t count, const MicroBatch& batch,
               std::vector<int32_t>& ends) const {
  if (count == L_) return;
  const int64_t begin = slot * L_ + count, end = (slot + 1) * L_;
  int32_t *tokens = batch.tokens.as<int32_t>(), *targets = batch.targets.as<int32_t>();
  std::fill(tokens + begin, tokens + end, padding_);
  std::fill(targets + begin, targets + end, kNoTarget);
  ends.push_back(int32_t(end));
}

void Rows::load_empty(int64_t slot, const MicroBatch& batch, std::vector<int32_t>& ends) const {
  pad(slot, 0, batch, ends);
}

void load_tokens(const ShardReader& reader, int64_t begin, int64_t count, int64_t at,
                 const MicroBatch& batch, std::vector<int32_t>& ends) {
  int32_t *tokens = batch.tokens.as<int32_t>() + at, *targets = batch.targets.as<int32_t>() + at;
  const int64_t beyond = std::min(count + 1, reader.tokens() - begin);  // the target of the last
  std::vector<int32_t> read(size_t(count) + 1, reader.info().end_of_text);
  reader.read(begin, beyond, read.data());
  std::copy_n(read.begin(), count, tokens);
  std::copy_n(read.begin() + 1, count, targets);
  const std::vector<int64_t>& offsets = reader.offsets();
  auto end = std::upper_bound(offsets.begin(), offsets.end(), begin);
  for (; end != offsets.end() && *end <= begin + count; ++end) {
    if (*end == *(end - 1)) continue;
    targets[*end - begin - 1] = reader.info().end_of_text;  // a document's end is predicted
    ends.push_back(int32_t(at + *end - begin));
  }
  if (ends.empty() || ends.back() < at + count) ends.push_back(int32_t(at + count));
}

ShardRows::ShardRows(std::shared_ptr<const ShardReader> reader, int64_t seq_len_tokens, Last last)
    : Rows(seq_len_tokens, reader->info().end_of_text), reader_(std::move(reader)) {
  SLUICE_CHECK(L_ > 0, "rows of ", L_, " tokens");
  rows_ = (reader_->tokens() + (last == Last::pad ? L_ - 1 : 0)) / L_;
  const std::vector<int64_t>& at = reader_->offsets();
  size_t first = 0;  // document of the row's first token
  for (int64_t begin = 0; begin < reader_->tokens(); begin += L_) {
    while (first + 1 < at.size() && at[first + 1] <= begin) ++first;
    size_t last_one = first;
    while (last_one + 1 < at.size() && at[last_one + 1] < begin + L_) ++last_one;
    max_documents_ = std::max(max_documents_, int64_t(last_one - first) + 2);  // one of padding
  }
  packing_ = {.tokens = rows_ * L_, .documents = reader_->documents()};
  packing_.padding = std::max<int64_t>(0, packing_.tokens - reader_->tokens());
  for (size_t d = 0; d + 1 < at.size(); ++d)
    packing_.cut += at[d] < at[d + 1] && at[d] / L_ != (at[d + 1] - 1) / L_;
}

int64_t ShardRows::valid_tokens(int64_t row) const {
  return std::min(L_, reader_->tokens() - row * L_);
}

int64_t ShardRows::load(int64_t row, int64_t slot, const MicroBatch& batch,
                        std::vector<int32_t>& ends) const {
  SLUICE_CHECK(row >= 0 && row < rows_, "row ", row, " of ", rows_);
  const int64_t count = valid_tokens(row);
  load_tokens(*reader_, row * L_, count, slot * L_, batch, ends);
  pad(slot, count, batch, ends);
  return count;
}

}  // namespace sluice
