// trainer/eval/by_position.h -- loss by position, in rows longer than those of training: what a
// model makes of positions that it has not seen.
#pragma once

#include <nlohmann/json.hpp>

#include "data/shards/shard.h"
#include "trainer/eval/continuation.h"

namespace sluice {

struct PositionOptions {
  int64_t row_tokens = 0;     // of a row: a multiple of training's, usually
  int64_t bucket_tokens = 0;  // positions that share one mean; the last bucket may be shorter
  int64_t rows = 32;          // at most
};

struct PositionBucket {
  int64_t begin = 0, end = 0;  // positions in the row
  double nats = 0;
  int64_t tokens = 0;
  double loss() const { return nats / double(tokens); }
};
struct PositionResult {
  // documents: the beginnings of those that are long enough. stream: there are fewer than
  // kFewDocuments of them, so rows are cut from all documents one after the other, and what is far
  // back may be another document.
  bool documents = false;
  int64_t rows = 0;
  std::vector<PositionBucket> buckets;
};
constexpr int64_t kFewDocuments = 4;

// Rows spread evenly over the shard, each one document to the model.
PositionResult loss_by_position(TokenScorer& scorer, const ShardReader& shard,
                                const PositionOptions& options, const Report& report);

// `train_tokens`: the rows of training.
nlohmann::ordered_json to_json(const PositionResult& r, int64_t bucket_tokens,
                               int64_t train_tokens);
std::string to_string(const PositionResult& r, int64_t train_tokens);

}  // namespace sluice
