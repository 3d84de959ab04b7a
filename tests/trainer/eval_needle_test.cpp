// tests/trainer/eval_needle_test.cpp -- documents with a needle in them, and who finds it.
#include "trainer/eval/needle.h"

#include <gtest/gtest.h>

#include "tests/support/message.h"
#include "tests/trainer/eval_scorers.h"

namespace sluice {
namespace {

using test::DocumentScorer;
using Ids = std::vector<int32_t>;

class EvalNeedle : public testing::Test {
 protected:
  EvalNeedle() {
    std::string text;
    for (int i = 0; i < 400; ++i) text += cat("Sentence number ", i, " goes on for a while. ");
    haystack_ = tokenizer_.encode(text);
  }
  std::string text_of(const Continuation& c) const { return tokenizer_.decode(c.tokens); }
  std::string answer_of(const Continuation& c) const {
    return tokenizer_.decode(std::span(c.tokens).subspan(size_t(c.begin)));
  }
  std::vector<Continuation> make(const NeedleOptions& o) const {
    return make_needles(tokenizer_, haystack_, o);
  }

  const Tokenizer tokenizer_{BpeTraining{}, "gpt2"};
  Ids haystack_;
  const NeedleOptions options_{
      .lengths = {300, 1000}, .depths = {0, 0.5, 1}, .trials = 3, .seed = 1};
};

TEST_F(EvalNeedle, DocumentsHaveTheirLengthAndTheNeedleItsDepth) {
  const auto list = make(options_);
  ASSERT_EQ(list.size(), 18U);
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string text = text_of(list[i]), answer = answer_of(list[i]);
    EXPECT_EQ(int64_t(list[i].tokens.size()), options_.lengths[i / 9]) << list[i].name;
    EXPECT_EQ(list[i].tokens[0], tokenizer_.end_of_text());
    EXPECT_EQ(answer.size(), 8U) << answer;
    const size_t needle = text.find(" The magic number of "), end = text.find(answer + ".");
    ASSERT_NE(needle, std::string::npos);
    ASSERT_NE(end, std::string::npos);
    EXPECT_EQ(text.find(" The magic number of ", needle + 1), text.rfind(" The magic number of "));
    const size_t question = text.find("\nWhat is the magic number of ");
    const std::string city = text.substr(needle + 21, text.find(" is", needle) - needle - 21);
    EXPECT_EQ(text.substr(question), "\nWhat is the magic number of " + city +
                                         "? The magic number of " + city + " is" + answer);
    const double depth = options_.depths[i / 3 % 3];
    const auto room = double(question - (end + 9 - needle));  // bytes of haystack
    EXPECT_LE(double(needle), depth * room);
    EXPECT_GE(double(needle), depth * room - 64) << "the end of a sentence is no further away";
    EXPECT_TRUE(depth == 0 || double(needle) == depth * room || text[needle - 1] == '.') << needle;
  }
}

// A function of seed, length, depth and number alone.
TEST_F(EvalNeedle, ATrialDoesNotDependOnTheOthers) {
  const auto all = make(options_), again = make(options_);
  NeedleOptions one = options_, other = options_;
  one.lengths = {1000};
  one.depths = {0.5};
  other.seed = 2;
  const auto alone = make(one), others = make(other);
  for (size_t t = 0; t < 3; ++t) EXPECT_EQ(alone[t].tokens, all[9 + 3 + t].tokens);
  for (size_t i = 0; i < all.size(); ++i) {
    EXPECT_EQ(all[i].tokens, again[i].tokens);
    EXPECT_NE(all[i].tokens, others[i].tokens);
    for (size_t j = 0; j < i; ++j) EXPECT_NE(answer_of(all[i]), answer_of(all[j]));
  }
}

// A reader who looks up the number behind the city in the document finds all; one who sees the
// last 400 tokens finds those that are there.
TEST_F(EvalNeedle, WhoReadsFindsIt) {
  for (const size_t window : {size_t(100000), size_t(400)}) {
    DocumentScorer reader([&](const Ids& document, size_t place) {
      const size_t begin = place + 1 > window ? place + 1 - window : 0;
      const std::string seen =
          tokenizer_.decode(std::span(document).subspan(begin, place + 1 - begin));
      const size_t question = seen.find("\nWhat is the");
      const size_t needle = seen.find(" The magic number of ");
      if (needle > question) return DocumentScorer::Token{5.5, -1};
      const size_t number = seen.find(" is ", needle) + 3;
      const size_t written = seen.size() - (seen.rfind(" is") + 3);
      return DocumentScorer::Token{0.5, uint8_t(seen[number + written])};
    });
    const auto grid =
        grade(options_, score_continuations(reader, make(options_), 2000, test::no_report));
    for (size_t l = 0; l < 2; ++l)
      for (size_t d = 0; d < 3; ++d) {
        const bool found = window > 1000 || l == 0 || d == 2;
        EXPECT_EQ(grid[l][d].exact.value(), found ? 1 : 0) << l << " " << d;
        EXPECT_EQ(grid[l][d].exact.total, 3);
        EXPECT_EQ(grid[l][d].tokens.total, 24);
        EXPECT_DOUBLE_EQ(grid[l][d].loss, found ? 0.5 : 5.5);
      }
    const auto json = to_json(options_, grid);
    EXPECT_EQ(json["accuracy"][1][2], 1.0);
    EXPECT_EQ(json["accuracy"][1][0], window > 1000 ? 1.0 : 0.0);
    EXPECT_EQ(json["lengths"], (nlohmann::json{300, 1000}));
    std::cout << to_string(options_, grid);
  }
}

// Seven of eight digits are not the number.
TEST_F(EvalNeedle, EveryTokenCounts) {
  DocumentScorer reader([](const Ids& document, size_t place) {
    const bool last = place + 2 == document.size();
    return DocumentScorer::Token{0, last ? -1 : document[place + 1]};
  });
  const auto grid =
      grade(options_, score_continuations(reader, make(options_), 2000, test::no_report));
  EXPECT_EQ(grid[0][0].exact.value(), 0);
  EXPECT_EQ(grid[0][0].tokens.value(), 7.0 / 8);
}

TEST_F(EvalNeedle, SaysWhatIsTooShort) {
  NeedleOptions o = options_;
  o.lengths = {50};
  EXPECT_NE(test::error_of([&] { make(o); }).find("--lengths 50: needle and question have 1"),
            std::string::npos);
  o.lengths = {1000000};
  EXPECT_NE(test::error_of([&] { make(o); }).find("give a longer text"), std::string::npos);
}

}  // namespace
}  // namespace sluice
