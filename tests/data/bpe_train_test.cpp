// tests/data/bpe_train_test.cpp -- each merge is what the definition says.
#include "data/tokenizer/bpe_train.h"

#include <map>
#include <set>

#include "data/tokenizer/tokenizer.h"
#include "tests/data/golden.h"
#include "tests/support/message.h"

namespace sluice::test {
namespace {

using Merges = std::vector<std::pair<int32_t, int32_t>>;

TEST(BpeTrain, TinyExampleByHand) {
  // Words: "low" x 3, " low" x 2, " lower" x 2. Pairs: lo 7, ow 7, " l" 4, we 2, er 2.
  // lo before ow (its ids are lower); then low 7; then " low" 4; then "er" (e < w as left ids);
  // " lower" needs " low" + "er" 2.
  const auto t = train_bpe({"low low low", "low lower", "low lower"}, "gpt2", 100);
  const int32_t l = 'l', o = 'o', w = 'w', e = 'e', r = 'r', space = ' ';
  EXPECT_EQ(t.merges, (Merges{{l, o}, {256, w}, {space, 257}, {e, r}, {258, 259}}));
  for (const int64_t n : {0, 1, 4})
    EXPECT_EQ(train_bpe({"low low low", "low lower", "low lower"}, "gpt2", n).merges,
              Merges(t.merges.begin(), t.merges.begin() + n));
  expect_contains(error_of([] { train_bpe({"a"}, "gpt2", -1); }), {"-1 merges"});
}

TEST(BpeTrain, TiesAndRepeatedLetters) {
  // Where no pair occurs twice there is no merge.
  EXPECT_TRUE(train_bpe({"abc"}, "gpt2", 10).merges.empty());
  EXPECT_TRUE(train_bpe({"", ""}, "gpt2", 10).merges.empty());
  // "zz" twice and "aa" twice: the lower ids first, whatever the order of the text.
  EXPECT_EQ(train_bpe({"zz aa", "zz,aa"}, "gpt2", 1).merges.at(0),
            (std::pair<int32_t, int32_t>{'a', 'a'}));
  // aaaaa: (a, a) 4 times, overlaps counted; merged from the left to [aa][aa]a, whose two pairs
  // are equally frequent: (aa, a) has the lower ids. Then [aa][aaa].
  EXPECT_EQ(train_bpe({"aaaaa aaaaa"}, "gpt2", 3).merges,
            (Merges{{'a', 'a'}, {256, 'a'}, {256, 257}}));
}

// Every merge is the most frequent pair of the words as they stand, counted anew: the definition.
TEST(BpeTrain, EveryMergeIsTheMostFrequentPair) {
  const std::string text = file_bytes(kGolden + "text.txt");
  std::map<std::string, int64_t> words;
  PreTokenizer::Matcher(PreTokenizer("gpt2")).split(text, [&](std::string_view w) {
    ++words[std::string(w)];
  });
  std::vector<std::pair<std::vector<int32_t>, int64_t>> seqs;
  for (const auto& [w, n] : words) {
    seqs.push_back({{}, n});
    for (const char c : w) seqs.back().first.push_back(uint8_t(c));
  }
  const auto merges = train_bpe({text}, "gpt2", 400).merges;
  std::vector<std::string> bytes;
  for (int b = 0; b < 256; ++b) bytes.emplace_back(1, char(b));
  std::set<std::string> made;
  for (size_t k = 0; k < merges.size(); ++k) {
    std::map<std::pair<int32_t, int32_t>, int64_t> counts;
    for (const auto& [ids, n] : seqs)
      for (size_t i = 0; i + 1 < ids.size(); ++i) counts[{ids[i], ids[i + 1]}] += n;
    std::pair<int32_t, int32_t> best{-1, -1};
    int64_t most = 0;
    for (const auto& [pair, n] : counts)  // in the order of ids: the first of equals stays
      if (n > most && !made.count(bytes[size_t(pair.first)] + bytes[size_t(pair.second)]))
        best = pair, most = n;
    ASSERT_EQ(merges[k], best) << "merge " << k;
    bytes.push_back(bytes[size_t(best.first)] + bytes[size_t(best.second)]);
    ASSERT_TRUE(made.insert(bytes.back()).second) << "the same bytes twice";
    for (auto& [ids, n] : seqs) {
      std::vector<int32_t> to;
      for (size_t i = 0; i < ids.size(); ++i) {
        const bool hit = i + 1 < ids.size() && ids[i] == best.first && ids[i + 1] == best.second;
        to.push_back(hit ? int32_t(256 + k) : ids[i]);
        i += hit;
      }
      ids = to;
    }
  }
  EXPECT_LT(merges.size(), 400u) << "stops where no pair occurs twice";
}

TEST(BpeTrain, TellsItsProgressAndDependsOnTheTextAlone) {
  std::vector<int64_t> told;
  const std::string text = file_bytes(kGolden + "text.txt");
  const auto a = train_bpe({text}, "qwen2", 50, [&](int64_t n) { told.push_back(n); });
  ASSERT_EQ(told.size(), 50u);
  for (int64_t i = 0; i < 50; ++i) EXPECT_EQ(told[size_t(i)], i + 1);
  // Lines in the other order are the same words.
  std::vector<std::string> lines;
  for (size_t at = 0, end; at < text.size(); at = end + 1) {
    end = text.find('\n', at);
    lines.insert(lines.begin(), text.substr(at, end + 1 - at));
  }
  EXPECT_EQ(train_bpe(lines, "qwen2", 50).merges, a.merges);
  expect_contains(error_of([] {
                    Tokenizer(BpeTraining{{{97, 300}}}, "gpt2");
                  }),
                  {"merge 0 of 97 and 300", "only 256 tokens"});
  expect_contains(error_of([] {
                    Tokenizer(BpeTraining{{{97, 97}, {97, 97}}}, "gpt2");
                  }),
                  {"merge 1 of 97 and 97", "there already"});
}

}  // namespace
}  // namespace sluice::test
