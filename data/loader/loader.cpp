// data/loader/loader.cpp -- which row comes when, and what is in it.
#include "data/loader/loader.h"

#include <algorithm>

#include "data/loader/permutation.h"
#include "kernels/tensor/rng.h"

namespace sluice {

MicroBatchBuffer::MicroBatchBuffer(int64_t tokens, int64_t max_documents)
    : tokens_(DType::i32, {tokens}),
      targets_(DType::i32, {tokens}),
      cu_seqlens_(DType::i32, {max_documents + 1}),
      batch_{tokens_.view(), targets_.view(), cu_seqlens_.view(), 0} {}

void set_documents(const std::vector<int32_t>& ends, MicroBatch& batch) {
  const int64_t capacity = batch.cu_seqlens.dim(0) - 1, N = batch.tokens.dim(0);
  SLUICE_CHECK(int64_t(ends.size()) <= capacity, ends.size(), " documents, room for ", capacity);
  int32_t* cu = batch.cu_seqlens.as<int32_t>();
  cu[0] = 0;
  for (int64_t d = 0; d < capacity; ++d)
    cu[d + 1] = d < int64_t(ends.size()) ? ends[size_t(d)] : int32_t(N);
}

RowSource::RowSource(const std::string& path, int64_t seq_len_tokens)
    : reader_(path), L_(seq_len_tokens) {
  SLUICE_CHECK(L_ > 0, "rows of ", L_, " tokens");
  const std::vector<int64_t>& at = reader_.offsets();
  size_t first = 0;  // document of the row's first token
  for (int64_t begin = 0; begin < reader_.tokens(); begin += L_) {
    while (first + 1 < at.size() && at[first + 1] <= begin) ++first;
    size_t last = first;
    while (last + 1 < at.size() && at[last + 1] < begin + L_) ++last;
    max_documents_ = std::max(max_documents_, int64_t(last - first) + 2);  // and one of padding
  }
}

int64_t RowSource::load(int64_t row, int64_t slot, const MicroBatch& batch,
                        std::vector<int32_t>& ends) const {
  const int64_t first = slot * L_;
  int32_t *tokens = batch.tokens.as<int32_t>() + first,
          *targets = batch.targets.as<int32_t>() + first;
  const int64_t begin = row < 0 ? 0 : row * L_;
  const int64_t count = row < 0 ? 0 : std::min(L_, reader_.tokens() - begin);
  std::fill(tokens + count, tokens + L_, reader_.info().end_of_text);
  std::fill(targets + count, targets + L_, kNoTarget);
  if (count > 0) {
    const int64_t beyond = std::min(count + 1, reader_.tokens() - begin);  // the target of the last
    std::vector<int32_t> read(size_t(count) + 1, reader_.info().end_of_text);
    reader_.read(begin, beyond, read.data());
    std::copy_n(read.begin(), count, tokens);
    std::copy_n(read.begin() + 1, count, targets);
    const std::vector<int64_t>& at = reader_.offsets();
    auto end = std::upper_bound(at.begin(), at.end(), begin);
    for (; end != at.end() && *end <= begin + count; ++end) {
      if (*end == *(end - 1)) continue;
      targets[*end - begin - 1] = reader_.info().end_of_text;  // a document's end is predicted
      ends.push_back(int32_t(first + *end - begin));
    }
    if (ends.empty() || ends.back() < first + count) ends.push_back(int32_t(first + count));
  }
  if (count < L_) ends.push_back(int32_t(first + L_));
  return count;
}

Loader::Loader(const DataConfig& config, int64_t batch_tokens, int64_t micro_batch_tokens, int rank,
               int ranks)
    : config_(config), L_(config.seq_len_tokens) {
  SLUICE_CHECK(!config.train.empty(), "data.train has no source");
  SLUICE_CHECK(L_ > 0, "data.seq_len_tokens is ", L_, ", expected a count above 0");
  SLUICE_CHECK(rank >= 0 && rank < ranks, "rank ", rank, " of ", ranks, " ranks");
  SLUICE_CHECK(batch_tokens > 0 && batch_tokens % L_ == 0, "train.batch_tokens is ", batch_tokens,
               ", expected a multiple of data.seq_len_tokens (", L_, ")");
  SLUICE_CHECK(micro_batch_tokens > 0 && micro_batch_tokens % L_ == 0,
               "train.micro_batch_tokens is ", micro_batch_tokens,
               ", expected a multiple of data.seq_len_tokens (", L_, ")");
  rows_per_batch_ = batch_tokens / L_;
  const int64_t share = (rows_per_batch_ + ranks - 1) / ranks;
  first_row_ = std::min(rows_per_batch_, rank * share);
  my_rows_ = std::min(rows_per_batch_ - first_row_, share);
  rows_per_micro_ = micro_batch_tokens / L_;
  micro_batches_ = (share + rows_per_micro_ - 1) / rows_per_micro_;
  for (const DataSource& s : config.train) {
    sources_.emplace_back(s.path, L_);
    const ShardInfo &info = sources_.back().reader().info(), &first = shard_info();
    SLUICE_CHECK(info.tokenizer == first.tokenizer, s.path, " was encoded with tokenizer ",
                 info.tokenizer, ", ", config.train.front().path, " with ", first.tokenizer);
    SLUICE_CHECK(sources_.back().full_rows() > 0, s.path, " has ",
                 sources_.back().reader().tokens(), " tokens, fewer than one row of ", L_);
  }
  given_.assign(sources_.size(), 0);
}

MicroBatchBuffer Loader::make_buffer() const {
  int64_t documents = 0;
  for (const RowSource& s : sources_) documents = std::max(documents, s.max_documents());
  return {rows_per_micro_ * L_, rows_per_micro_ * documents};
}

// Row by row, the source that is furthest behind its weight gives next: n + 1 rows over its weight
// smallest, the first of equals. Going back starts from zero: cheap, and there is no state to save.
Loader::Place Loader::place(int64_t global_row) {
  if (global_row < next_) {
    std::fill(given_.begin(), given_.end(), 0);
    next_ = 0;
  }
  if (sources_.size() == 1) {
    given_[0] = next_ = global_row;
    return {0, global_row};
  }
  for (;; ++next_) {
    size_t best = 0;
    for (size_t s = 1; s < sources_.size(); ++s)
      if (double(given_[s] + 1) / config_.train[s].weight <
          double(given_[best] + 1) / config_.train[best].weight)
        best = s;
    if (next_ == global_row) return {best, given_[best]};
    ++given_[best];
  }
}

int64_t Loader::row_of(const Place& p) const {
  const int64_t rows = sources_[p.source].full_rows(), epoch = p.nth / rows;
  const DataSource& source = config_.train[p.source];
  SLUICE_CHECK(epoch < source.max_epochs, "data.train[", p.source, "] (", source.path,
               ") has given its ", rows, " rows ", epoch, " times, max_epochs is ",
               source.max_epochs);
  const uint64_t key =
      rng_key(uint64_t(config_.seed), cat("rows of source ", p.source, " epoch ", epoch));
  return permuted(key, rows, p.nth % rows);
}

void Loader::load(int64_t step, int64_t micro_batch, MicroBatch& batch) {
  SLUICE_CHECK(step >= 0 && micro_batch >= 0 && micro_batch < micro_batches_, "step ", step,
               ", micro-batch ", micro_batch, " of ", micro_batches_);
  SLUICE_CHECK(batch.tokens.dim(0) == rows_per_micro_ * L_, "a micro-batch of ",
               batch.tokens.dim(0), " tokens, expected ", rows_per_micro_ * L_);
  std::vector<int32_t> ends;
  batch.valid_tokens = 0;
  for (int64_t slot = 0; slot < rows_per_micro_; ++slot) {
    const int64_t mine = micro_batch * rows_per_micro_ + slot;
    if (mine >= my_rows_) {
      sources_.front().load(-1, slot, batch, ends);
      continue;
    }
    const Place p = place(step * rows_per_batch_ + first_row_ + mine);
    batch.valid_tokens += sources_[p.source].load(row_of(p), slot, batch, ends);
  }
  set_documents(ends, batch);
}

void Loader::check_supply(int64_t steps) {
  place(steps * rows_per_batch_);
  for (size_t s = 0; s < sources_.size(); ++s) {
    const int64_t rows = sources_[s].full_rows(), epochs = config_.train[s].max_epochs;
    SLUICE_CHECK(given_[s] <= rows * epochs, "data.train[", s, "] (", config_.train[s].path,
                 ") has ", rows, " rows of ", L_, " tokens and may be read ", epochs, " times; ",
                 steps, " steps need ", given_[s], " rows, ", (given_[s] + rows - 1) / rows,
                 " epochs");
  }
}

double Loader::epochs(int64_t steps) {
  place(steps * rows_per_batch_);
  return double(given_.front()) / double(sources_.front().full_rows());
}

}  // namespace sluice
