// data/loader/rows.h -- where rows of seq_len_tokens come from: a shard, or a task.
#pragma once

#include <limits>
#include <memory>
#include <string>

#include "data/loader/batch.h"
#include "data/loader/packing.h"
#include "data/shards/shard.h"
#include "data/tasks/task.h"

namespace sluice {

// What became of a shard's documents.
struct PackingFacts {
  int64_t tokens = 0;     // of all rows
  int64_t padding = 0;    // of them
  int64_t documents = 0;  // of the shard
  int64_t cut = 0;        // of them, by the end of a row
};

// The rows of one source, numbered from 0. What is in a row is a pure function of its number.
// Row n goes into a batch at slot s: tokens s*L to (s+1)*L.
class Rows {
 public:
  Rows(int64_t seq_len_tokens, int32_t padding) : L_(seq_len_tokens), padding_(padding) {}
  virtual ~Rows() = default;

  virtual int64_t count() const = 0;  // kEndless: as many as anybody asks for
  // Documents that touch one row at most, padding being one.
  virtual int64_t max_documents() const = 0;
  // Targets in a row: known from counts alone.
  virtual int64_t valid_tokens(int64_t row) const = 0;
  virtual PackingFacts packing() const { return {}; }  // no documents: not of a shard
  // Appends the ends of the row's documents to `ends`. Returns valid_tokens(row).
  virtual int64_t load(int64_t row, int64_t slot, const MicroBatch& batch,
                       std::vector<int32_t>& ends) const = 0;
  // A row of padding throughout.
  void load_empty(int64_t slot, const MicroBatch& batch, std::vector<int32_t>& ends) const;

  static constexpr int64_t kEndless = std::numeric_limits<int64_t>::max();

 protected:
  // Makes the last L - count tokens of a slot padding, a document of its own.
  void pad(int64_t slot, int64_t count, const MicroBatch& batch, std::vector<int32_t>& ends) const;

  int64_t L_;

 private:
  int32_t padding_;  // a token: any would do, nothing is learnt from it
};

// Tokens begin .. begin + count - 1 of a shard, at token `at` of the batch, and their targets: the
// next token of the same document, end_of_text after its last. Appends the ends of the documents
// in them, the last of which may go on.
void load_tokens(const ShardReader& reader, int64_t begin, int64_t count, int64_t at,
                 const MicroBatch& batch, std::vector<int32_t>& ends);

// The documents of a shard in file order, one stream that is cut into rows.
class ShardRows : public Rows {
 public:
  enum class Last : uint8_t { drop, pad };  // the last row, if it is short
  ShardRows(std::shared_ptr<const ShardReader> reader, int64_t seq_len_tokens, Last last);
  int64_t count() const override { return rows_; }
  int64_t max_documents() const override { return max_documents_; }
  int64_t valid_tokens(int64_t row) const override;
  PackingFacts packing() const override { return packing_; }
  int64_t load(int64_t row, int64_t slot, const MicroBatch& batch,
               std::vector<int32_t>& ends) const override;

 private:
  std::shared_ptr<const ShardReader> reader_;  // shared with what asks for the shard's facts
  int64_t rows_, max_documents_ = 1;
  PackingFacts packing_;
};

// The documents of a shard, whole where they fit into a row, packed by best fit within windows of
// consecutive ones. What is kept is eight bytes a document (the reader's offsets), four a row, and
// the windows' beginnings; a window is planned again when a row of it is read.
class PackedRows : public Rows {
 public:
  PackedRows(std::shared_ptr<const ShardReader> reader, int64_t seq_len_tokens);
  int64_t count() const override { return int64_t(filled_.size()); }
  int64_t max_documents() const override { return max_documents_; }
  int64_t valid_tokens(int64_t row) const override { return filled_[size_t(row)]; }
  PackingFacts packing() const override { return packing_; }
  int64_t load(int64_t row, int64_t slot, const MicroBatch& batch,
               std::vector<int32_t>& ends) const override;

 private:
  struct Window {
    int64_t first_document, first_row;
  };
  std::vector<PackedRow> plan(int64_t first_document, int64_t end_document) const;
  const PackedRow& pieces(int64_t row) const;

  std::shared_ptr<const ShardReader> reader_;
  std::vector<Window> windows_;
  std::vector<int32_t> filled_;  // tokens of each row
  int64_t max_documents_ = 1;
  PackingFacts packing_;
  mutable const Window* planned_ = nullptr;  // whose plan is kept: small shards have one
  mutable std::vector<PackedRow> plan_;
};

// Example n of a task in row n.
class TaskRows : public Rows {
 public:
  TaskRows(const TaskConfig& config, int64_t seq_len_tokens, uint64_t key, int64_t count);
  const TaskFacts& facts() const { return task_->facts(); }
  int64_t count() const override { return count_; }
  int64_t max_documents() const override { return 2; }
  int64_t valid_tokens(int64_t) const override { return task_->facts().answers; }
  int64_t load(int64_t row, int64_t slot, const MicroBatch& batch,
               std::vector<int32_t>& ends) const override;

 private:
  std::unique_ptr<Task> task_;
  uint64_t key_;
  int64_t count_;
};

}  // namespace sluice
