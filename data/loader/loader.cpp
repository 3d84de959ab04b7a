// data/loader/loader.cpp -- which row comes when.
#include "data/loader/loader.h"

#include <fmt/format.h>

#include <algorithm>

#include "data/loader/permutation.h"
#include "kernels/base/check.h"
#include "kernels/tensor/rng.h"

namespace sluice {

Loader::Loader(const DataConfig& config, int64_t batch_tokens, int64_t micro_batch_tokens, int rank,
               int ranks)
    : config_(config), L_(config.seq_len_tokens) {
  SLUICE_CHECK(config.task || !config.train.empty(), "data.train has no source");
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
  config.task ? open_task() : open_shards();
  std::vector<double> weights;
  for (const Source& s : sources_) weights.push_back(s.weight);
  mixture_.emplace(weights);
}

void Loader::open_shards() {
  for (const DataSource& s : config_.train) {
    auto reader = std::make_shared<const ShardReader>(s.path);
    if (!first_) first_ = reader;
    SLUICE_CHECK(reader->info().tokenizer == first_->info().tokenizer, s.path,
                 " was encoded with tokenizer ", reader->info().tokenizer, ", ", first_->path(),
                 " with ", first_->info().tokenizer);
    std::unique_ptr<Rows> rows;
    if (config_.packing == "best_fit")
      rows = std::make_unique<PackedRows>(reader, L_);
    else
      rows = std::make_unique<ShardRows>(reader, L_, ShardRows::Last::drop);
    SLUICE_CHECK(rows->count() > 0, s.path, " has ", reader->tokens(),
                 " tokens, fewer than one row of ", L_);
    sources_.push_back({std::move(rows), s.weight, s.max_epochs,
                        cat("data.train[", sources_.size(), "] (", s.path, ")")});
  }
}

void Loader::open_task() {
  const TaskConfig& task = *config_.task;
  sources_.push_back({std::make_unique<TaskRows>(task, L_, train_examples_key(config_.seed),
                                                 task.train_examples.value_or(Rows::kEndless)),
                      1, task.max_epochs, cat("data.task (", task.kind, ")")});
}

MicroBatchBuffer Loader::make_buffer() const {
  int64_t documents = 0;
  for (const Source& s : sources_) documents = std::max(documents, s.rows->max_documents());
  return {rows_per_micro_ * L_, rows_per_micro_ * documents, L_};
}

Loader::Row Loader::row_at(const Mixture::Place& p) const {
  const Source& source = sources_[p.source];
  const int64_t rows = source.rows->count();
  if (rows == Rows::kEndless) return {source.rows.get(), p.nth};
  const int64_t epoch = p.nth / rows;
  SLUICE_CHECK(epoch < source.max_epochs, source.label, " has given its ", rows, " rows ", epoch,
               " times, max_epochs is ", source.max_epochs);
  const uint64_t key =
      rng_key(uint64_t(config_.seed), cat("rows of source ", p.source, " epoch ", epoch));
  return {source.rows.get(), permuted(key, rows, p.nth % rows)};
}

const std::vector<Loader::Row>& Loader::rows_of(int64_t step) {
  SLUICE_CHECK(step >= 0, "step ", step);
  if (listed_step_ == step) return listed_;
  listed_step_ = -1;  // until all are there
  listed_.clear();
  listed_valid_ = 0;
  for (int64_t r = 0; r < rows_per_batch_; ++r) {
    const Row row = row_at(mixture_->place(step * rows_per_batch_ + r));
    listed_valid_ += row.rows->valid_tokens(row.number);
    listed_.push_back(row);
  }
  listed_step_ = step;
  return listed_;
}

void Loader::load(int64_t step, int64_t micro_batch, MicroBatch& batch) {
  SLUICE_CHECK(micro_batch >= 0 && micro_batch < micro_batches_, "step ", step, ", micro-batch ",
               micro_batch, " of ", micro_batches_);
  SLUICE_CHECK(batch.tokens.dim(0) == rows_per_micro_ * L_, "a micro-batch of ",
               batch.tokens.dim(0), " tokens, expected ", rows_per_micro_ * L_);
  const std::vector<Row>& rows = rows_of(step);
  std::vector<int32_t> ends;
  batch.valid_tokens = 0;
  batch.step_valid_tokens = listed_valid_;
  for (int64_t slot = 0; slot < rows_per_micro_; ++slot) {
    const int64_t mine = micro_batch * rows_per_micro_ + slot;
    if (mine >= my_rows_) {
      sources_.front().rows->load_empty(slot, batch, ends);
      continue;
    }
    const Row& r = rows[size_t(first_row_ + mine)];
    batch.valid_tokens += r.rows->load(r.number, slot, batch, ends);
  }
  set_documents(ends, batch);
}

void Loader::check_supply(int64_t steps) {
  const std::vector<int64_t>& given = mixture_->given(steps * rows_per_batch_);
  for (size_t s = 0; s < sources_.size(); ++s) {
    const Source& source = sources_[s];
    const int64_t rows = source.rows->count();
    if (rows == Rows::kEndless) continue;
    SLUICE_CHECK(given[s] <= rows * source.max_epochs, source.label, " has ", rows, " rows of ", L_,
                 " tokens and may be read ", source.max_epochs, " times; ", steps, " steps need ",
                 given[s], " rows, ", (given[s] + rows - 1) / rows, " epochs");
  }
}

std::string Loader::packing_table() const {
  std::string table;
  for (const Source& s : sources_) {
    const PackingFacts p = s.rows->packing();
    if (p.documents == 0) continue;
    table += fmt::format(
        "packing  {}: {}, {} rows, {:.2f} % padding, {:.2f} % of {} documents cut\n", s.label,
        config_.packing, s.rows->count(), 100 * double(p.padding) / double(p.tokens),
        100 * double(p.cut) / double(p.documents), p.documents);
  }
  return table;
}

double Loader::epochs(int64_t steps) {
  if (sources_.front().rows->count() == Rows::kEndless) return 0;
  return double(mixture_->given(steps * rows_per_batch_).front()) /
         double(sources_.front().rows->count());
}

}  // namespace sluice
