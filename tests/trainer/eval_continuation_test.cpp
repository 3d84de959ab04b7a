// tests/trainer/eval_continuation_test.cpp -- continuations: cut, packed, scored.
#include <gtest/gtest.h>

#include "tests/support/message.h"
#include "tests/support/tiny_model.h"
#include "tests/trainer/eval_scorers.h"

namespace sluice {
namespace {

using test::DocumentScorer;
using Ids = std::vector<int32_t>;

const Tokenizer& bytes() {
  static const Tokenizer tokenizer{BpeTraining{}, "gpt2"};
  return tokenizer;
}

Continuation continuation(const Tokenizer& tokenizer, const std::string& context,
                          const std::string& text, const std::string& name) {
  Encoder encoder(tokenizer);
  return make_continuation(encoder, tokenizer.end_of_text(), context, text, name);
}

Ids ids(const std::string& text) {
  return bytes().encode(text);
}

TEST(EvalContinuation, CutsAsTheHarnessDoes) {
  const Continuation c = continuation(bytes(), "ab", " cd", "f:1");
  Ids want = ids("ab cd");
  want.insert(want.begin(), bytes().end_of_text());
  EXPECT_EQ(c.tokens, want);
  EXPECT_EQ(c.begin, 3);
  // Blanks at the context's end go over.
  const Continuation moved = continuation(bytes(), "ab \n", "cd", "f:1");
  EXPECT_EQ(moved.begin, 3);
  EXPECT_EQ(moved.tokens.size(), want.size() + 1);
  // Without a context the document's first token is scored, too.
  EXPECT_EQ(continuation(bytes(), "", "x", "f:1").begin, 1);
  EXPECT_NE(test::error_of([] { continuation(bytes(), "ab", "", "f:7"); }).find("f:7"),
            std::string::npos);
}

// "a" + "b" is one token in this vocabulary: the pair is encoded whole, and cut where the context
// alone ends.
TEST(EvalContinuation, EncodesThePairAsOneText) {
  BpeTraining merges;
  merges.merges = {{'a', 'b'}};
  const Tokenizer tokenizer(merges, "gpt2");
  const Continuation c = continuation(tokenizer, "xa", "bc", "f:1");
  EXPECT_EQ(c.tokens.size(), 4U);  // end_of_text x ab c
  EXPECT_EQ(c.begin, 3);           // encode("xa") has two tokens
}

std::vector<Continuation> some(size_t n) {
  std::vector<Continuation> list;
  for (size_t i = 0; i < n; ++i) {
    Continuation c{.tokens = {}, .begin = int64_t(1 + i % 3), .name = cat("f:", i)};
    for (size_t t = 0; t < 5 + i * 7 % 40; ++t) c.tokens.push_back(int32_t(random_u64(i, t) % 29));
    list.push_back(std::move(c));
  }
  return list;
}

// Loss 2^-place at each place, all tokens but the last one predicted.
TEST(EvalContinuation, SumsExactlyTheContinuation) {
  DocumentScorer scorer([](const Ids& document, size_t place) {
    const bool last = place + 2 == document.size();
    return DocumentScorer::Token{std::exp2(-double(place)), last ? -1 : document[place + 1]};
  });
  const std::vector<Continuation> list = some(50);
  for (const int64_t batch : {44, 100, 100000}) {
    const auto scores = score_continuations(scorer, list, batch, test::no_report);
    ASSERT_EQ(scores.size(), list.size());
    for (size_t i = 0; i < list.size(); ++i) {
      const int64_t n = int64_t(list[i].tokens.size()) - list[i].begin;
      // Places begin - 1 .. size - 2.
      const double want =
          std::exp2(2 - double(list[i].begin)) - std::exp2(2 - double(list[i].tokens.size()));
      EXPECT_NEAR(scores[i].log_likelihood, -want, 1e-12) << i;
      EXPECT_EQ(scores[i].tokens, n);
      EXPECT_EQ(scores[i].predicted, n - 1);
      EXPECT_FALSE(scores[i].exact());
    }
  }
  int64_t total = 0;
  for (const Continuation& c : list) total += int64_t(c.tokens.size()) - 1;
  EXPECT_EQ(scorer.planned_tokens, total);
}

TEST(EvalContinuation, SaysWhatToChangeForALongOne) {
  DocumentScorer scorer([](const Ids&, size_t) { return DocumentScorer::Token{0, 0}; });
  std::vector<Continuation> list = some(9);
  list[4].tokens.resize(101, 0);
  const std::string error =
      test::error_of([&] { score_continuations(scorer, list, 99, test::no_report); });
  EXPECT_NE(error.find("f:4: has 100 tokens, a batch 99: needs --batch-tokens 100"),
            std::string::npos)
      << error;
  EXPECT_EQ(scorer.calls, 0);
  EXPECT_EQ(score_continuations(scorer, list, 100, test::no_report).size(), 9U);
  EXPECT_TRUE(score_continuations(scorer, {}, 100, test::no_report).empty());
}

// A document's scores are its own, to the bit: alone, beside any others, on any threads.
TEST(EvalContinuation, PackedIsAloneToTheBit) {
  const std::vector<Continuation> list = some(20);
  std::vector<LmConfig> models{test::tiny_config(), test::tiny_config("gdn"),
                               test::tiny_moe_config()};
  models[1].mla.use_nope = false;
  for (const LmConfig& config : models) {
    LoadedModel model{.checkpoint = {}, .skipped = {}, .config = {}, .params = {}, .lm = {}};
    model.params = std::make_unique<PlainStore>(DType::f32);
    model.lm = std::make_unique<Lm>(config, *model.params);
    model.params->allocate();
    initialize(*model.params, 1);
    test::set_unequal_loads(*model.params);
    ThreadPool one(1), two(2);
    ModelScorer a(model, one, Mode::batch_invariant), b(model, two, Mode::batch_invariant);
    const auto all = score_continuations(a, list, 100000, test::no_report);
    const auto packed = score_continuations(b, list, 90, test::no_report);
    for (size_t i = 0; i < list.size(); ++i) {
      const auto alone =
          score_continuations(a, std::span(list).subspan(i, 1), 100000, test::no_report);
      EXPECT_EQ(alone[0].log_likelihood, all[i].log_likelihood) << i;
      EXPECT_EQ(alone[0].log_likelihood, packed[i].log_likelihood) << i;
      EXPECT_EQ(alone[0].predicted, packed[i].predicted) << i;
    }
  }
}

}  // namespace
}  // namespace sluice
