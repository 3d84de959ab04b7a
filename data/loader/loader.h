// data/loader/loader.h -- batches as a pure function of (data.seed, step).
//
// A source's documents, one after the other in file order, are cut into rows of seq_len_tokens; an
// epoch is a permutation of the rows. State and attention start afresh at each document and at each
// row. The global batch is a list of rows; rank k of R takes the k-th block of them, so the data
// and its order do not depend on R.
#pragma once

#include <vector>

#include "data/loader/config.h"
#include "data/shards/shard.h"
#include "kernels/tensor/buffer.h"

namespace sluice {

constexpr int32_t kNoTarget = -1;  // the ignore index of kernels/linear_cross_entropy

// What one forward and backward pass works on, of fixed size.
struct MicroBatch {
  Tensor tokens;      // [N] i32
  Tensor targets;     // [N] i32, kNoTarget in padding
  Tensor cu_seqlens;  // [max_documents + 1] i32, filled up with N
  int64_t valid_tokens = 0;
};

// Writes cu_seqlens from the ends of the documents, in order; the last is N. Throws if they do not
// fit.
void set_documents(const std::vector<int32_t>& ends, MicroBatch& batch);

// Memory for one, on the host.
class MicroBatchBuffer {
 public:
  MicroBatchBuffer(int64_t tokens, int64_t max_documents);
  MicroBatch& batch() { return batch_; }

 private:
  Buffer tokens_, targets_, cu_seqlens_;
  MicroBatch batch_;
};

// Rows of one shard.
class RowSource {
 public:
  RowSource(const std::string& path, int64_t seq_len_tokens);
  int64_t full_rows() const { return reader_.tokens() / L_; }
  int64_t all_rows() const { return (reader_.tokens() + L_ - 1) / L_; }  // the last may be short
  int64_t max_documents() const { return max_documents_; }               // that touch one row
  const ShardReader& reader() const { return reader_; }
  // Row `row` (-1: an empty one, padding throughout) at rows slot*L .. of the batch. Appends the
  // ends of its documents, padding being a document, to `ends`. Returns the valid targets.
  int64_t load(int64_t row, int64_t slot, const MicroBatch& batch,
               std::vector<int32_t>& ends) const;

 private:
  ShardReader reader_;
  int64_t L_, max_documents_ = 1;
};

class Loader {
 public:
  // Throws if the sizes do not divide: micro_batch_tokens and batch_tokens are whole rows.
  Loader(const DataConfig& config, int64_t batch_tokens, int64_t micro_batch_tokens, int rank = 0,
         int ranks = 1);

  int64_t micro_batches() const { return micro_batches_; }  // of a step, on every rank
  MicroBatchBuffer make_buffer() const;
  // Of the whole global batch: known before any micro-batch, from counts alone.
  int64_t valid_tokens(int64_t) const { return rows_per_batch_ * L_; }
  void load(int64_t step, int64_t micro_batch, MicroBatch& batch);  // steps count from 0
  // Throws, before step 1, if a source would be read more often than its max_epochs.
  void check_supply(int64_t steps);
  double epochs(int64_t steps);  // of the first source, after so many steps
  const ShardInfo& shard_info() const { return sources_.front().reader().info(); }

 private:
  struct Place {
    size_t source;
    int64_t nth;  // of the rows that this source has given
  };
  Place place(int64_t global_row);
  int64_t row_of(const Place& p) const;  // throws once the source's max_epochs are over

  DataConfig config_;
  int64_t L_, rows_per_batch_, rows_per_micro_, micro_batches_, first_row_, my_rows_;
  std::vector<RowSource> sources_;
  std::vector<int64_t> given_;  // by source, of the rows before next_: all the state there is
  int64_t next_ = 0;
};

// Every token of a shard once, in file order.
class ValidationSet {
 public:
  ValidationSet(const std::string& path, int64_t seq_len_tokens, int64_t micro_batch_tokens);
  int64_t micro_batches() const;
  MicroBatchBuffer make_buffer() const;
  void load(int64_t micro_batch, MicroBatch& batch) const;
  int64_t text_bytes() const { return source_.reader().text_bytes(); }
  const ShardInfo& shard_info() const { return source_.reader().info(); }

 private:
  RowSource source_;
  int64_t L_, rows_per_micro_;
};

}  // namespace sluice
