// trainer/eval/by_position.cpp -- rows of a shard, one at a time.
#include "trainer/eval/by_position.h"

#include <fmt/format.h>

#include <algorithm>

namespace sluice {

namespace {

// Where rows begin; each has a target for its last token, if only a document's end.
std::vector<int64_t> choose_rows(const ShardReader& shard, const PositionOptions& options,
                                 bool& documents) {
  const std::vector<int64_t>& at = shard.offsets();
  std::vector<int64_t> begins;
  for (size_t d = 0; d + 1 < at.size(); ++d)
    if (at[d + 1] - at[d] >= options.row_tokens) begins.push_back(at[d]);
  documents = int64_t(begins.size()) >= kFewDocuments;
  if (!documents) {
    begins.clear();
    for (int64_t t = 0; t + options.row_tokens <= shard.tokens(); t += options.row_tokens)
      begins.push_back(t);
  }
  if (begins.empty())
    throw Error(cat(shard.path(), " has ", shard.tokens(), " tokens, a row ", options.row_tokens,
                    ": take a smaller --factor or another shard"));
  const int64_t there = int64_t(begins.size()), rows = std::min(there, options.rows);
  for (int64_t r = 0; r < rows; ++r) begins[size_t(r)] = begins[size_t(r * there / rows)];
  begins.resize(size_t(rows));
  return begins;
}

void load(const ShardReader& shard, int64_t begin, MicroBatch& batch) {
  const int64_t R = batch.tokens.dim(0);
  // A document's end is end_of_text, which is how the next one begins, too.
  std::vector<int32_t> read(size_t(R) + 1, shard.info().end_of_text);
  shard.read(begin, std::min(R + 1, shard.tokens() - begin), read.data());
  std::copy_n(read.begin(), R, batch.tokens.as<int32_t>());
  std::copy_n(read.begin() + 1, R, batch.targets.as<int32_t>());
  batch.valid_tokens = R;
  set_documents({int32_t(R)}, batch);
}

}  // namespace

PositionResult loss_by_position(TokenScorer& scorer, const ShardReader& shard,
                                const PositionOptions& options, const Report& report) {
  const int64_t R = options.row_tokens, bucket = options.bucket_tokens;
  PositionResult result;
  const std::vector<int64_t> begins = choose_rows(shard, options, result.documents);
  for (int64_t b = 0; b < R; b += bucket)
    result.buckets.push_back({.begin = b, .end = std::min(b + bucket, R)});
  MicroBatchBuffer buffer(R, 1);
  scorer.plan(buffer.batch());
  for (const int64_t begin : begins) {
    load(shard, begin, buffer.batch());
    const Scores scores = scorer.score(buffer.batch());
    for (int64_t n = 0; n < R; ++n) {
      PositionBucket& b = result.buckets[size_t(n / bucket)];
      b.nats += scores.nll[size_t(n)];
      ++b.tokens;
    }
    report(++result.rows, int64_t(begins.size()));
  }
  return result;
}

nlohmann::ordered_json to_json(const PositionResult& r, int64_t bucket_tokens,
                               int64_t train_tokens) {
  nlohmann::ordered_json buckets;
  for (const PositionBucket& b : r.buckets)
    buckets.push_back(
        {{"begin", b.begin}, {"end", b.end}, {"loss", b.loss()}, {"tokens", b.tokens}});
  return {{"kind", "by_position"},
          {"rows_from", r.documents ? "documents" : "stream"},
          {"rows", r.rows},
          {"train_seq_len_tokens", train_tokens},
          {"bucket_tokens", bucket_tokens},
          {"buckets", buckets}};
}

std::string to_string(const PositionResult& r, int64_t train_tokens) {
  std::string text =
      fmt::format("{} rows of {} tokens, {}\n{:>17} {:>8} {:>8}\n", r.rows, r.buckets.back().end,
                  r.documents ? "each the beginning of one document"
                              : "cut from documents one after the other (too few are long enough)",
                  "positions", "tokens", "loss");
  for (const PositionBucket& b : r.buckets)
    text += fmt::format("{:>17} {:>8} {:>8.4f}{}\n", fmt::format("{} .. {}", b.begin, b.end),
                        b.tokens, b.loss(), b.begin >= train_tokens ? "  beyond training" : "");
  return text;
}

}  // namespace sluice
