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
  for (const int64_t end : reader.document_ends(begin, begin + count)) {
    targets[end - begin - 1] = reader.info().end_of_text;  // a document's end is predicted
    ends.push_back(int32_t(at + end - begin));
  }
  if (ends.empty() || ends.back() < at + count) ends.push_back(int32_t(at + count));
}

struct Documents {
  int64_t most_in_a_row = 0, cut = 0;  // cut: by the end of a row
};
// By pages: a shard may have more offsets than there is memory.
static Documents look_at_documents(const ShardReader& shard, int64_t L) {
  constexpr int64_t kPage = 65536;
  std::vector<int64_t> page(size_t(kPage) + 1);
  Documents out;
  int64_t row = -1, in_row = 0;
  for (int64_t first = 0; first < shard.documents(); first += kPage) {
    const int64_t n = std::min(kPage, shard.documents() - first);
    shard.read_offsets(first, n + 1, page.data());
    for (size_t d = 0; d < size_t(n); ++d) {
      const int64_t begin = page[d] / L, end = (page[d + 1] - 1) / L;
      in_row = begin == row ? in_row + 1 : 1;
      out.most_in_a_row = std::max(out.most_in_a_row, in_row);
      out.cut += end > begin;
      if (end > begin) in_row = 1;
      row = end;
    }
  }
  return out;
}

ShardRows::ShardRows(std::shared_ptr<const ShardReader> reader, int64_t seq_len_tokens, Last last)
    : Rows(seq_len_tokens, reader->info().end_of_text), reader_(std::move(reader)) {
  SLUICE_CHECK(L_ > 0, "rows of ", L_, " tokens");
  rows_ = (reader_->tokens() + (last == Last::pad ? L_ - 1 : 0)) / L_;
  const Documents documents = look_at_documents(*reader_, L_);
  max_documents_ = 1 + documents.most_in_a_row;  // and one of padding
  packing_ = {.tokens = rows_ * L_, .documents = reader_->documents()};
  packing_.padding = std::max<int64_t>(0, packing_.tokens - reader_->tokens());
  packing_.cut = documents.cut;
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
