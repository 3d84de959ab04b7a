// tests/data/unicode_test.cpp -- every code point is to PCRE2 and utf8proc what it is to
// `tokenizers`.
#include <nlohmann/json.hpp>

#include "data/tokenizer/normalizer.h"
#include "data/tokenizer/pretokenizer.h"
#include "data/tokenizer/regex.h"
#include "data/tokenizer/utf8.h"
#include "tests/data/golden.h"
#include "tests/support/message.h"

namespace sluice::test {
namespace {

using Json = nlohmann::json;

void put(std::string& s, char32_t c) {
  const auto more = [&](int shift) { s += char(0x80 | (c >> shift & 0x3F)); };
  if (c < 0x80) {
    s += char(c);
  } else if (c < 0x800) {
    s += char(0xC0 | c >> 6), more(0);
  } else if (c < 0x10000) {
    s += char(0xE0 | c >> 12), more(6), more(0);
  } else {
    s += char(0xF0 | c >> 18), more(12), more(6), more(0);
  }
}

struct Hash {
  uint64_t h = 0xcbf29ce484222325u;
  void add(uint64_t n) { h = (h ^ n) * 0x100000001b3u; }
  void add(std::string_view text) {
    for (size_t i = 0; i < text.size();) {
      const size_t n = utf8_character(text, i);
      ASSERT_GT(n, 0u);
      add(utf8_code_point(text, i, n));
      i += n;
    }
  }
};

template <class Body>
void each_code_point(Body&& body) {
  for (char32_t c = 1; c < 0x110000; ++c)
    if (c < 0xD800 || c >= 0xE000) body(c);
}

// Each code point is followed by "~", and has to be: so a match is one code point.
TEST(Unicode, SetsAreThoseOfTokenizers) {
  const Json golden = Json::parse(file_bytes(kGolden + "unicode.json"));
  std::string all;
  each_code_point([&](char32_t c) {
    if (c != '~') put(all, c), all += '~';
  });
  for (const auto& item : golden["sets"].items()) {
    PreTokenizer::Matcher matcher(PreTokenizer(item.key() + "(?=~)"));
    int pieces = 0;
    matcher.split("~~", [&](std::string_view) { ++pieces; });
    bool tilde = pieces == 2;
    Hash members;
    matcher.split(all, [&](std::string_view piece) {
      if (piece[0] == '~' || utf8_character(piece, 0) != piece.size()) return;  // between matches
      const char32_t c = utf8_code_point(piece, 0, piece.size());
      if (tilde && c > '~') members.add('~'), tilde = false;
      members.add(c);
    });
    EXPECT_EQ(std::to_string(members.h), item.value().get<std::string>()) << item.key();
  }
}

TEST(Unicode, NormalFormIsThatOfTokenizers) {
  const Json golden = Json::parse(file_bytes(kGolden + "unicode.json"));
  std::string text, scratch;
  for (const auto& item : golden["nfc"].items()) {
    Hash h;
    each_code_point([&](char32_t c) {
      text = item.key();
      std::string one;
      put(one, c);
      for (size_t at = text.find("%s"); at != std::string::npos; at = text.find("%s", at))
        text.replace(at, 2, one), at += one.size();
      h.add(nfc(text, scratch));
    });
    EXPECT_EQ(std::to_string(h.h), item.value().get<std::string>()) << item.key();
  }
}

TEST(Unicode, NormalFormOfParts) {
  std::string out;
  EXPECT_EQ(nfc("plain ASCII", out), "plain ASCII");
  EXPECT_EQ(nfc("e\u0301", out), "\u00e9");
  EXPECT_EQ(nfc("xe\u0301\u0323y \u0301", out), "x\u1eb9\u0301y \u0301");
  EXPECT_EQ(nfc("\u0323\u0301", out), "\u0323\u0301");
  EXPECT_EQ(nfc("\u0301\u0323", out), "\u0323\u0301");
  EXPECT_EQ(nfc("\u1100\u1161\u11a8\u4e2d", out), "\uac01\u4e2d");
  EXPECT_EQ(nfc("\u212b \u2126\u0958", out), "\u00c5 \u03a9\u0915\u093c");
  EXPECT_EQ(nfc(std::string("\0e\u0301\0", 5), out), std::string("\0\u00e9\0", 4));
  // Combining since Unicode 10: `tokenizers` leaves it where it is.
  EXPECT_EQ(nfc("a\U00011d42\u0301", out), "a\U00011d42\u0301");
}

TEST(Regex, WhatEnginesReadDifferentlyIsRefused) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"\\w+", "\"\\w\" is not one of"},
      {"\\bx", "\"\\b\" is not one of"},
      {"\\h", "\"\\h\" is not one of"},
      {"(a)\\1", "\"\\1\" is not one of"},
      {"x$", "\"$\": whether it stops at lines"},
      {"^x", "\"^\": whether"},
      {"a.", "\".\": whether"},
      {"\\p{N}{1,3}+", "after {n,m} a \"+\" or \"?\""},
      {"a{,3}", "expected {n}, {n,} or {n,m}"},
      {"a{3,2}", "expected {n}, {n,} or {n,m}"},
      {"a**", "a repetition of a repetition"},
      {"(?:a*)*", "a repetition of what can match nothing"},
      {"(?!a)*b", "a repeated lookahead"},
      {"a*", "it can match nothing"},
      {"a|", "it can match nothing"},
      {"(?=a)", "it can match nothing"},
      {"(?<=a)b", "a group other than"},
      {"(?i)a", "a group other than"},
      {"(?>a)", "a group other than"},
      {"(?i:ss)", "\"ss\" in (?i:...), which also is one character"},
      {"(?i:aFf)", "\"ff\" in (?i:...)"},
      {"(?i:\u00df)", "beyond ASCII in (?i:...)"},
      {"(?i:[\u00df])", "beyond ASCII in (?i:...)"},
      {"(?i:\\p{Lu})", "a set of characters in (?i:...)"},
      {"(?i:a+)", "a repetition in (?i:...)"},
      {"(?i:(a))", "a group in (?i:...)"},
      {"[a[b]]", "a class in a class"},
      {"[[:alpha:]]", "a class in a class"},
      {"[^a&&[b]]", "an intersection in a negated class"},
      {"[a&&b]", "expected [...] after &&"},
      {"[^\\S]", "a negated set in a class"},
      {"[a-\\s]", "is not one of"},
      {"[\\s-a]", "a range that begins with a set"},
      {"[a-b-c]", "a \"-\" that is neither escaped nor"},
      {"[b-a]", "a range that ends before it begins"},
      {"[]a]", "an empty class"},
      {"[a", "expected \"]\""},
      {"[a\\", "ends with a backslash"},
      {"a\\", "ends with a backslash"},
      {"(a", "expected \")\""},
      {"a)", "closes nothing"},
      {"]", "an unescaped \"]\""},
      {"*", "an unescaped \"*\""},
      {"\\p{Greek}", "category \"Greek\": expected L Lu"},
      {"\\pL", "expected \\p{...}"},
      {"\xff", "expected UTF-8"},
  };
  for (const auto& [regex, why] : cases)
    expect_contains(error_of([&, r = regex] { to_pcre2(r); }), {"regex \"", why});
}

TEST(Regex, WhatIsAllowedMatches) {
  const auto words = [](const std::string& regex, const std::string& text) {
    std::string joined;
    PreTokenizer::Matcher(PreTokenizer(Pattern{regex})).split(text, [&](std::string_view w) {
      joined += (joined.empty() ? "" : "|") + std::string(w);
    });
    return joined;
  };
  EXPECT_EQ(words("a++b|c?+d", "aabcdd"), "aab|cd|d");
  EXPECT_EQ(words("[\\p{L}&&[^\\p{Han}]]+", "ab\u4e2dc"), "ab|\u4e2d|c");
  EXPECT_EQ(words("[\\p{L}\\p{N}&&[a-f\\d]]+", "abcxyz19f"), "abc|xyz|19f");
  EXPECT_EQ(words("[-a.]+", "b-a.b"), "b|-a.|b");
  EXPECT_EQ(words("[^-a]+", "bc-a"), "bc|-a");
  EXPECT_EQ(words("(a|b)+(?=c)", "abcab"), "ab|cab");
  EXPECT_EQ(words("'(?i:[sdmt]|ll|ve|re)", "I'LLx'\u017f"), "I|'LL|x|'\u017f");
  EXPECT_EQ(words("a{2}|b{1,}|c{1,2}", "aaabbccc"), "aa|a|bb|cc|c");
  EXPECT_EQ(words("\\p{Han}+", "\u3000\u4e2d\u3007\u3001"), "\u3000|\u4e2d\u3007|\u3001");
  for (const char* name : {"gpt2", "qwen2", "cl100k", "o200k", "kimi", "deepseek-v3"})
    EXPECT_EQ(pattern_name(pattern_of(name)), name);
}

// Two million repetitions of a group: more than PCRE2's own stack would hold.
TEST(Regex, LongWordsFitTheStack) {
  PreTokenizer::Matcher kimi(PreTokenizer("kimi"));
  const std::string text(size_t(2) << 20, 'a');
  size_t words = 0;
  kimi.split(text, [&](std::string_view) { ++words; });
  EXPECT_EQ(words, 1u);
}

}  // namespace
}  // namespace sluice::test
