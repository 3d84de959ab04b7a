// data/loader/loader.h -- batches as a pure function of (data.seed, step).
//
// A source's documents, one after the other in file order, are cut into rows of seq_len_tokens; an
// epoch is a permutation of the rows. State and attention start afresh at each document and at each
// row. The global batch is a list of rows; rank k of R takes the k-th block of them, so the data
// and its order do not depend on R. With a task, rows are its examples.
#pragma once

#include <optional>
#include <vector>

#include "data/loader/config.h"
#include "data/loader/mixture.h"
#include "data/loader/rows.h"

namespace sluice {

class Loader {
 public:
  // Throws if the sizes do not divide: micro_batch_tokens and batch_tokens are whole rows.
  Loader(const DataConfig& config, int64_t batch_tokens, int64_t micro_batch_tokens, int rank = 0,
         int ranks = 1);

  int64_t micro_batches() const { return micro_batches_; }  // of a step, on every rank
  MicroBatchBuffer make_buffer() const;
  // Of the whole global batch: known before any micro-batch, from counts alone.
  int64_t valid_tokens(int64_t step) {
    rows_of(step);
    return listed_valid_;
  }
  void load(int64_t step, int64_t micro_batch, MicroBatch& batch);  // steps count from 0
  // Throws, before step 1, if a source would be read more often than its max_epochs.
  void check_supply(int64_t steps);
  std::string packing_table() const;  // a line for each shard
  double epochs(int64_t steps);       // of the first source, after so many steps; 0: it is endless
  // Of the first shard; null: rows are a task's.
  const ShardInfo* shard_info() const { return first_ ? &first_->info() : nullptr; }

 private:
  struct Source {
    std::unique_ptr<Rows> rows;
    double weight;
    int64_t max_epochs;
    std::string label;  // for messages
  };
  struct Row {
    const Rows* rows;
    int64_t number;
  };
  void open_shards();
  void open_task();
  Row row_at(const Mixture::Place& p) const;  // throws once the source's max_epochs are over
  const std::vector<Row>& rows_of(int64_t step);

  DataConfig config_;
  int64_t L_, rows_per_batch_, rows_per_micro_, micro_batches_, first_row_, my_rows_;
  std::vector<Source> sources_;
  std::shared_ptr<const ShardReader> first_;
  std::optional<Mixture> mixture_;
  int64_t listed_step_ = -1;  // of the two below
  std::vector<Row> listed_;   // the global batch
  int64_t listed_valid_ = 0;  // its valid tokens
};

// Every token of a shard once, in file order; or the validation examples of a task.
class ValidationSet {
 public:
  ValidationSet(const std::string& path, int64_t seq_len_tokens, int64_t micro_batch_tokens);
  // Micro-batches of as many rows as fit into micro_batch_tokens, but one at least.
  ValidationSet(const TaskConfig& task, int64_t seq_len_tokens, int64_t micro_batch_tokens);
  int64_t micro_batches() const;
  MicroBatchBuffer make_buffer() const;
  void load(int64_t micro_batch, MicroBatch& batch) const;
  // Null for a task.
  std::optional<int64_t> text_bytes() const;
  const ShardInfo* shard_info() const { return shard_ ? &shard_->info() : nullptr; }
  // The accuracy of guessing; null for a shard.
  std::optional<double> chance() const { return chance_; }

 private:
  std::shared_ptr<const ShardReader> shard_;
  std::unique_ptr<Rows> rows_;
  std::optional<double> chance_;
  int64_t L_, rows_per_micro_;
};

}  // namespace sluice
