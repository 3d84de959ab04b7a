// data/loader/packed_rows.cpp -- rows of whole documents, planned a window of documents at a time.
#include <algorithm>

#include "data/loader/rows.h"
#include "kernels/base/check.h"

namespace sluice {

// Tokens of a window, in rows: few enough to be planned again whenever a row of it is read, and so
// many that the rows that its last pieces leave half empty do not count.
constexpr int64_t kWindowRows = 256;

PackedRows::PackedRows(std::shared_ptr<const ShardReader> reader, int64_t seq_len_tokens)
    : Rows(seq_len_tokens, reader->info().end_of_text), reader_(std::move(reader)) {
  SLUICE_CHECK(L_ > 0, "rows of ", L_, " tokens");
  const std::vector<int64_t>& at = reader_->offsets();
  packing_.documents = reader_->documents();
  for (int64_t d = 0; d < packing_.documents;) {
    windows_.push_back({d, int64_t(filled_.size())});
    const int64_t begin = at[size_t(d)];
    for (; d < packing_.documents && at[size_t(d)] - begin < kWindowRows * L_; ++d)
      packing_.cut += at[size_t(d) + 1] - at[size_t(d)] > L_;
    for (const PackedRow& row : plan(windows_.back().first_document, d)) {
      int64_t tokens = 0;
      for (const Piece& p : row) tokens += p.end - p.begin;
      filled_.push_back(int32_t(tokens));
      packing_.padding += L_ - tokens;
      max_documents_ = std::max(max_documents_, int64_t(row.size()) + 1);  // and one of padding
    }
  }
  packing_.tokens = count() * L_;
}

std::vector<PackedRow> PackedRows::plan(int64_t first, int64_t end) const {
  const int64_t* at = reader_->offsets().data();
  return pack_best_fit({at + first, size_t(end - first) + 1}, L_);
}

const PackedRow& PackedRows::pieces(int64_t row) const {
  SLUICE_CHECK(row >= 0 && row < count(), "row ", row, " of ", count());
  const auto next = std::upper_bound(windows_.begin(), windows_.end(), row,
                                     [](int64_t r, const Window& w) { return r < w.first_row; });
  const Window& w = *(next - 1);
  if (planned_ != &w) {
    plan_ = plan(w.first_document,
                 next == windows_.end() ? reader_->documents() : next->first_document);
    planned_ = &w;
  }
  return plan_[size_t(row - w.first_row)];
}

int64_t PackedRows::load(int64_t row, int64_t slot, const MicroBatch& batch,
                         std::vector<int32_t>& ends) const {
  int64_t filled = 0;
  for (const Piece& p : pieces(row)) {
    load_tokens(*reader_, p.begin, p.end - p.begin, slot * L_ + filled, batch, ends);
    filled += p.end - p.begin;
  }
  pad(slot, filled, batch, ends);
  return filled;
}

}  // namespace sluice
