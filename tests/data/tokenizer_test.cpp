// tests/data/tokenizer_test.cpp -- bytes survive, and ids are Hugging Face's.
#include "data/tokenizer/tokenizer.h"

#include <chrono>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "data/tokenizer/byte_alphabet.h"
#include "data/tokenizer/encoder.h"
#include "data/tokenizer/normalizer.h"
#include "kernels/tensor/rng.h"
#include "tests/data/golden.h"
#include "tests/support/message.h"

namespace sluice::test {
namespace {

using Json = nlohmann::json;

std::string random_bytes(uint64_t seed, size_t n, uint64_t modulus = 256) {
  std::string s;
  for (uint64_t i = 0; i < n; ++i) s += char(random_u64(seed, i) % modulus);
  return s;
}

// --- encode and decode ------------------------------------------------------------------------

TEST(Tokenizer, AnyBytesSurvive) {
  std::vector<std::string> texts = {"",
                                    std::string(1, '\0'),
                                    std::string(5000, 'a'),
                                    std::string(5000, ' '),
                                    std::string(300, '\0'),
                                    "a\r\nb\r\n\r\n",
                                    "\xff\xfe\xfd",
                                    "\xe6\xb0",
                                    "\xe6\xb0\xb4\xe6",
                                    "\xc0\xaf",
                                    "\xed\xa0\x80",
                                    "\xf4\x90\x80\x80",
                                    "\xf0\x9f\x8c\x8a\xf0\x9f\x8c",
                                    "water\x80gate\xbf water",
                                    "<|endoftext|>"};
  for (uint64_t seed = 0; seed < 40; ++seed) {
    texts.push_back(random_bytes(seed, 1 + seed * 40));
    texts.push_back(random_bytes(seed, 200, 3));  // NUL, 1, 2
    std::string damaged = file_bytes(kGolden + "text.txt");
    for (uint64_t i = 0; i < 30; ++i)
      damaged[random_u64(seed, 1000 + i) % damaged.size()] = char(random_u64(seed, 2000 + i));
    texts.push_back(damaged);
  }
  for (const char* pattern : {"gpt2", "qwen2"}) {
    const Tokenizer bytes(BpeTraining{}, pattern), merged(trained(pattern), pattern);
    Encoder encoder(merged);
    for (const std::string& t : texts) {
      const auto ids = bytes.encode(t);
      EXPECT_EQ(ids.size(), t.size());
      ASSERT_EQ(bytes.decode(ids), t);
      ASSERT_EQ(merged.decode(merged.encode(t)), t);
      const auto want = merged.encode(t);
      for (const char* time : {"first", "from memory"}) ASSERT_EQ(encoder.encode(t), want) << time;
    }
  }
}

TEST(Tokenizer, TextIsNeverASpecialToken) {
  const Tokenizer t(trained("gpt2"), "gpt2");
  EXPECT_EQ(t.end_of_text(), 419);
  EXPECT_EQ(t.token_bytes(t.end_of_text()), "");
  for (const int32_t id : t.encode("<|endoftext|>")) EXPECT_NE(id, t.end_of_text());
  EXPECT_EQ(t.decode(std::vector<int32_t>{97, t.end_of_text(), 98}), "ab");
  for (const int32_t bad : {-1, 420})
    expect_contains(error_of([&] { t.token_bytes(bad); }),
                    {cat("token ", bad), "vocabulary of 420"});
}

// A word of many bytes takes the other path, which must merge the same pairs in the same order.
TEST(Tokenizer, LongWordsMergeAsShortOnesDo) {
  // Merges whose order matters: aa, aaaa, ba, ab.
  const Tokenizer t(BpeTraining{{{97, 97}, {256, 256}, {98, 97}, {97, 98}}}, "gpt2");
  const auto plain = [&](std::string word) {  // by the definition: lowest rank, leftmost
    const std::vector<std::pair<std::string, std::string>> merges = {
        {"a", "a"}, {"aa", "aa"}, {"b", "a"}, {"a", "b"}};
    std::vector<std::string> parts;
    for (const char c : word) parts.emplace_back(1, c);
    for (bool again = true; again;) {
      again = false;
      for (const auto& [l, r] : merges) {
        for (size_t i = 0; i + 1 < parts.size() && !again; ++i)
          if (parts[i] == l && parts[i + 1] == r) {
            parts[i] += r;
            parts.erase(parts.begin() + int64_t(i) + 1);
            again = true;
          }
        if (again) break;
      }
    }
    return parts;
  };
  for (uint64_t seed = 0; seed < 60; ++seed) {
    std::string word;
    for (uint64_t i = 0; i < 20 + seed * 2; ++i) word += "aaab"[random_u64(seed, i) % 4];
    std::vector<std::string> got;
    for (const int32_t id : t.encode(word)) got.push_back(t.token_bytes(id));
    ASSERT_EQ(got, plain(word)) << word;
  }
}

// A megabyte of one letter: quadratic merging would take hours here.
TEST(Tokenizer, ALongRunIsNotQuadratic) {
  const Tokenizer t(BpeTraining{{{97, 97}, {256, 256}, {257, 257}}}, "gpt2");
  const auto start = std::chrono::steady_clock::now();
  const auto ids = t.encode(std::string(1 << 20, 'a'));
  EXPECT_EQ(ids, std::vector<int32_t>(1 << 17, 258));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(30));
}

// More words than an encoder remembers, of all lengths, twice.
TEST(Encoder, ForgettingChangesNothing) {
  const Tokenizer t(trained("qwen2"), "qwen2");
  Encoder encoder(t);
  std::string text;
  for (uint64_t i = 0; i < 100000; ++i)
    text += " " + bytes_to_alphabet(random_bytes(i, 1 + i % 40, 26)) + std::to_string(i);
  const auto first = encoder.encode(text);
  EXPECT_EQ(encoder.encode(text), first);
  EXPECT_EQ(t.decode(first), text);
  std::vector<int32_t> appended = {7};
  encoder.encode(" the water", appended);
  std::vector<int32_t> want = t.encode(" the water");
  want.insert(want.begin(), 7);
  EXPECT_EQ(appended, want);
}

// --- added tokens and normal form --------------------------------------------------------------

TEST(AddedTokens, TheLeftmostAndOfThoseTheLongest) {
  AddedTokens tokens;
  const auto pieces = [&](std::string_view text) {
    std::string out;
    tokens.split(
        text, [&](std::string_view t) { out += cat("(", t, ")"); },
        [&](int32_t id) { out += cat("<", id, ">"); });
    return out;
  };
  EXPECT_EQ(pieces("abc"), "(abc)");
  tokens.add("ab", 1), tokens.add("abcd", 2), tokens.add("bc", 3);
  EXPECT_EQ(pieces(""), "");
  EXPECT_EQ(pieces("abcbc"), "<1>(c)<3>");
  EXPECT_EQ(pieces("abcdab"), "<2><1>");
  EXPECT_EQ(pieces("xbcabc"), "(x)<3><1>(c)");
  EXPECT_EQ(pieces("abc"), "<1>(c)") << "abcd begins and does not end";
  tokens.add("cab", AddedTokens::kText);  // special: not found, and nothing is found inside
  EXPECT_EQ(pieces("xcabc"), "(xcabc)");
  EXPECT_EQ(pieces("xcababc"), "(xcab)<1>(c)");
  expect_contains(error_of([&] { tokens.add("ab", 9); }), {"\"ab\" is given twice"});
}

TEST(Tokenizer, NormalFormIsWhatDecodeGives) {
  const Tokenizer t = Tokenizer::load(kGolden + "hf_kimi.json");
  EXPECT_TRUE(t.normalizes());
  EXPECT_EQ(t.decode(t.encode("e\u0301 \u212b")), "\u00e9 \u00c5");
  // Each run of valid UTF-8 by itself: the accent does not reach the letter before the broken byte.
  EXPECT_EQ(t.decode(t.encode("e\xff\u0301")), "e\xff\u0301");
  const std::string bytes = random_bytes(3, 5000);
  const auto ids = t.encode(bytes);
  EXPECT_EQ(t.encode(t.decode(ids)), ids);
}

// As if each were a text of its own: no word, no added token reaches across a broken byte.
TEST(Tokenizer, BrokenBytesStandBetweenTexts) {
  const Tokenizer t = Tokenizer::load(kGolden + "hf_kimi.json");
  const auto whole = t.encode("the <think>\x80water\xe4\xb8 <thi\xffnk>");
  std::vector<int32_t> parts;
  for (const char* text : {"the <think>", "water", " <thi", "nk>"})
    for (const int32_t id : t.encode(text)) parts.push_back(id);
  std::vector<int32_t> without;
  for (const int32_t id : whole)
    if (t.token_bytes(id).size() != 1 || uint8_t(t.token_bytes(id)[0]) < 0x80)
      without.push_back(id);
  EXPECT_EQ(without, parts);
  EXPECT_EQ(t.decode(whole), "the <think>\x80water\xe4\xb8 <thi\xffnk>");
}

TEST(Encoder, ManyThreadsUseOneTokenizer) {
  const Tokenizer t(trained("gpt2"), "gpt2");
  const std::string text = file_bytes(kGolden + "text.txt");
  const auto want = t.encode(text);
  std::vector<std::vector<int32_t>> got(4);
  std::vector<std::thread> threads;
  for (auto& ids : got)
    threads.emplace_back([&] {
      Encoder encoder(t);
      for (int i = 0; i < 20; ++i) ids = encoder.encode(text);
    });
  for (std::thread& thread : threads) thread.join();
  for (const auto& ids : got) EXPECT_EQ(ids, want);
}

TEST(PreTokenizer, PiecesAreTheTextInOrder) {
  for (const char* pattern : {"gpt2", "qwen2"}) {
    const PreTokenizer made(pattern);
    EXPECT_EQ(pattern_name(made.pattern()), pattern);
    PreTokenizer::Matcher cut(made);
    std::vector<std::string> words;
    cut.split("It's 42\r\n!", [&](std::string_view w) { words.emplace_back(w); });
    EXPECT_EQ(words, std::string(pattern) == "gpt2"
                         ? (std::vector<std::string>{"It", "'s", " 42", "\r", "\n", "!"})
                         : (std::vector<std::string>{"It", "'s", " ", "4", "2", "\r\n", "!"}));
  }
  // Unicode's White_Space, and what looks like it.
  for (const char* pattern : {"gpt2", "qwen2"})
    for (const auto& [character, is_space] :
         std::vector<std::pair<std::string, bool>>{{"\t", true},
                                                   {"\x0b", true},
                                                   {"\x0c", true},
                                                   {"\u00a0", true},
                                                   {"\u0085", true},
                                                   {"\u1680", true},
                                                   {"\u2000", true},
                                                   {"\u200a", true},
                                                   {"\u2028", true},
                                                   {"\u202f", true},
                                                   {"\u205f", true},
                                                   {"\u3000", true},
                                                   {"\u180e", false},
                                                   {"\u200b", false},
                                                   {"\ufeff", false},
                                                   {"\x1c", false}}) {
      int words = 0;
      PreTokenizer::Matcher(PreTokenizer(pattern))
          .split("!" + character + "!", [&](std::string_view) { ++words; });
      EXPECT_EQ(words, is_space ? 3 : 1) << pattern << " " << bytes_to_alphabet(character);
    }
  expect_contains(error_of([] { PreTokenizer p("llama"); }),
                  {"\"llama\"", "expected gpt2, qwen2, ", "or a regex"});
}

TEST(ByteAlphabet, IsABijection) {
  std::string all;
  for (int b = 0; b < 256; ++b) all += char(b);
  const std::string text = bytes_to_alphabet(all);
  EXPECT_EQ(alphabet_to_bytes(text, "x"), all);
  EXPECT_EQ(bytes_to_alphabet(" \n"), "\u0120\u010a");  // as GPT-2's files have them
  for (const char* bad : {"a b", "\u0144", "\u4e2d", "\xc3"})
    expect_contains(error_of([&] { alphabet_to_bytes(bad, "here"); }),
                    {"here: ", "stands for no byte"});
}

// --- Hugging Face -----------------------------------------------------------------------------

class Golden : public ::testing::TestWithParam<const char*> {};

TEST_P(Golden, IdsAreThoseOfTokenizers) {
  const Json golden = Json::parse(file_bytes(kGolden + "ids.json"));
  const Folder folder;
  const Tokenizer loaded = Tokenizer::load(kGolden + GetParam() + ".json");
  EXPECT_GE(loaded.vocab_size(), 420);
  loaded.save(folder / "again.json");
  const Tokenizer again = Tokenizer::load(folder / "again.json");
  EXPECT_EQ(again.fingerprint(), loaded.fingerprint());
  const Json& cases = golden["cases"];
  ASSERT_GT(cases.size(), 30u);
  for (size_t i = 0; i < cases.size(); ++i) {
    const auto text = cases[i].get<std::string>();
    const auto want = golden[GetParam()][i].get<std::vector<int32_t>>();
    EXPECT_EQ(loaded.encode(text), want) << text;
    EXPECT_EQ(again.encode(text), want) << text;
    const std::string decoded = loaded.decode(want);
    std::string form, form_of_text;
    if (loaded.normalizes()) {  // an added token comes back as it is written in the file
      EXPECT_EQ(nfc(decoded, form), nfc(text, form_of_text));
    } else {
      EXPECT_EQ(decoded, text);
    }
  }
  const std::string mixed = file_bytes(kGolden + "mixed.txt");
  for (const Tokenizer* t : {&loaded, &again}) {
    const auto ids = t->encode(mixed);
    uint64_t h = 0xcbf29ce484222325u;
    for (const int32_t id : ids) h = (h ^ uint64_t(id)) * 0x100000001b3u;
    EXPECT_EQ((Json{ids.size(), std::to_string(h)}), golden["mixed"][GetParam()]);
  }
}
INSTANTIATE_TEST_SUITE_P(Files, Golden,
                         ::testing::Values("hf_gpt2", "hf_qwen2", "ours_gpt2", "ours_qwen2",
                                           "hf_cl100k", "hf_o200k", "hf_kimi", "hf_deepseek-v3",
                                           "hf_gpt2-digits"));

// The committed files, which `tokenizers` loads, are what is written today.
TEST(Tokenizer, WritesTheGoldenFiles) {
  const Folder folder;
  for (const std::string pattern : {"gpt2", "qwen2"}) {
    Tokenizer(trained(pattern), pattern).save(folder / "t.json");
    EXPECT_EQ(file_bytes(folder / "t.json"), file_bytes(kGolden + "ours_" + pattern + ".json"));
  }
  expect_contains(error_of([] { Tokenizer({}, "gpt2").save("/nowhere/t.json"); }),
                  {"/nowhere/t.json", "No such file"});
}

TEST(Tokenizer, FingerprintsTellTokenizersApart) {
  std::set<std::string> seen;
  for (const char* pattern : {"gpt2", "qwen2"})
    for (const std::vector<std::pair<int32_t, int32_t>>& merges :
         {std::vector<std::pair<int32_t, int32_t>>{},
          {{97, 98}},
          {{98, 97}},
          {{97, 98}, {256, 99}},
          {{97, 98}, {98, 99}}})
      seen.insert(Tokenizer({merges}, pattern).fingerprint());
  EXPECT_EQ(seen.size(), 10u);
}

}  // namespace
}  // namespace sluice::test
