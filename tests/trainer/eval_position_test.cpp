// tests/trainer/eval_position_test.cpp -- loss by position of rows longer than training's.
#include <gtest/gtest.h>

#include "tests/support/folder.h"
#include "tests/support/message.h"
#include "tests/trainer/eval_scorers.h"
#include "trainer/eval/by_position.h"

namespace sluice {
namespace {

using test::DocumentScorer;
using Ids = std::vector<int32_t>;

class EvalPosition : public testing::Test {
 protected:
  // Documents of `lengths` tokens, end_of_text (99) included; token t of document d is d % 90.
  ShardReader shard(const std::vector<int64_t>& lengths) const {
    ShardInfo info{.vocab_size = 100, .end_of_text = 99, .tokenizer = "t"};
    info.token_bytes.assign(100, 1);
    ShardWriter writer(folder_ / "s.h5", info);
    for (size_t d = 0; d < lengths.size(); ++d)
      writer.add_document(Ids(size_t(lengths[d] - 1), int32_t(d % 90)));
    writer.finish();
    return ShardReader(folder_ / "s.h5");
  }

  test::Folder folder_;
};

// Loss = position: each bucket's mean is known.
DocumentScorer by_place(std::vector<Ids>* seen) {
  return DocumentScorer([seen](const Ids& document, size_t place) {
    if (place == 0) seen->push_back(document);
    return DocumentScorer::Token{double(place), 0};
  });
}

TEST_F(EvalPosition, LongDocumentsGiveTheirBeginnings) {
  const ShardReader s = shard({50, 10, 60, 49, 51, 80, 50});
  std::vector<Ids> seen;
  DocumentScorer scorer = by_place(&seen);
  const PositionResult r = loss_by_position(
      scorer, s, {.row_tokens = 50, .bucket_tokens = 20, .rows = 32}, test::no_report);
  EXPECT_TRUE(r.documents);
  EXPECT_EQ(r.rows, 5);
  ASSERT_EQ(seen.size(), 5U);
  const int32_t of[] = {0, 2, 4, 5, 6};
  for (size_t i = 0; i < 5; ++i) {
    Ids want(51, of[i]);
    want[0] = 99;
    if (i == 0 || i == 4) want[50] = 99;  // it ends here, which is a target
    EXPECT_EQ(seen[i], want) << i;
  }
  ASSERT_EQ(r.buckets.size(), 3U);
  EXPECT_EQ(r.buckets[0].loss(), 9.5);
  EXPECT_EQ(r.buckets[1].loss(), 29.5);
  EXPECT_EQ(r.buckets[2].begin, 40);
  EXPECT_EQ(r.buckets[2].end, 50);
  EXPECT_EQ(r.buckets[2].loss(), 44.5);
  EXPECT_EQ(r.buckets[2].tokens, 50);
  const auto json = to_json(r, 20, 25);
  EXPECT_EQ(json["rows_from"], "documents");
  EXPECT_EQ(json["buckets"][2]["loss"], 44.5);
  EXPECT_EQ(json["train_seq_len_tokens"], 25);
  EXPECT_NE(to_string(r, 40).find("44.5000  beyond training"), std::string::npos);
  EXPECT_EQ(to_string(r, 41).find("beyond"), std::string::npos);
}

TEST_F(EvalPosition, FewerRowsAreSpreadOverTheShard) {
  const ShardReader s = shard(std::vector<int64_t>(12, 50));
  std::vector<Ids> seen;
  DocumentScorer scorer = by_place(&seen);
  loss_by_position(scorer, s, {.row_tokens = 40, .bucket_tokens = 40, .rows = 4}, test::no_report);
  ASSERT_EQ(seen.size(), 4U);
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(seen[i][1], int32_t(3 * i));
}

TEST_F(EvalPosition, ShortDocumentsBecomeAStreamAndItSaysSo) {
  const ShardReader s = shard({100, 30, 30, 30, 5});
  std::vector<Ids> seen;
  DocumentScorer scorer = by_place(&seen);
  const PositionResult r = loss_by_position(
      scorer, s, {.row_tokens = 65, .bucket_tokens = 65, .rows = 32}, test::no_report);
  EXPECT_FALSE(r.documents);
  EXPECT_EQ(r.rows, 3);  // 195 tokens
  EXPECT_EQ(seen[1][35], 99) << "the second document begins inside of the row";
  EXPECT_EQ(seen[2].back(), 99) << "the last token's target is the end";
  EXPECT_EQ(to_json(r, 65, 65)["rows_from"], "stream");
  EXPECT_NE(to_string(r, 65).find("too few are long enough"), std::string::npos);
  const std::string error = test::error_of([&] {
    loss_by_position(scorer, s, {.row_tokens = 196, .bucket_tokens = 1}, test::no_report);
  });
  EXPECT_NE(error.find("s.h5 has 195 tokens, a row 196: take a smaller --factor"),
            std::string::npos);
}

TEST_F(EvalPosition, FourLongDocumentsAreEnough) {
  std::vector<Ids> seen;
  DocumentScorer scorer = by_place(&seen);
  const PositionOptions options{.row_tokens = 50, .bucket_tokens = 50, .rows = 32};
  EXPECT_TRUE(
      loss_by_position(scorer, shard({50, 9, 50, 50, 50}), options, test::no_report).documents);
  EXPECT_FALSE(
      loss_by_position(scorer, shard({50, 9, 50, 50, 49}), options, test::no_report).documents);
}

}  // namespace
}  // namespace sluice
