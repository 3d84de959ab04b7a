// tests/data/tiktoken_test.cpp -- merges recovered from ranks, and what is wrong in a .tiktoken
// file.
#include <nlohmann/json.hpp>

#include "data/tokenizer/encoder.h"
#include "data/tokenizer/tokenizer.h"
#include "tests/data/golden.h"
#include "tests/support/message.h"

namespace sluice::test {
namespace {

using Json = nlohmann::json;
using Specials = std::vector<std::pair<int32_t, std::string>>;

std::string base64(const std::string& bytes) {
  const std::string alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t bits = 0;
    for (size_t k = 0; k < 3; ++k)
      bits = bits << 8 | (i + k < bytes.size() ? uint8_t(bytes[i + k]) : 0u);
    for (size_t k = 0; k < 4; ++k)
      out += i + k > bytes.size() ? '=' : alphabet[bits >> (18 - 6 * k) & 63];
  }
  return out;
}

// The bytes, then these tokens.
std::vector<std::string> lines_of(const std::vector<std::string>& tokens) {
  std::vector<std::string> lines;
  for (int b = 0; b < 256; ++b) lines.push_back(cat(base64(std::string(1, char(b))), " ", b));
  for (const std::string& t : tokens) lines.push_back(cat(base64(t), " ", lines.size()));
  return lines;
}

std::string joined(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& l : lines) text += l + "\n";
  return text;
}

TEST(Tiktoken, MergesAreThoseThatWereLearnt) {
  const Folder folder;
  for (const std::string pattern : {"gpt2", "qwen2"}) {
    const Tokenizer learnt(trained(pattern), pattern);
    std::vector<std::string> tokens;
    for (int32_t id = 256; id < learnt.end_of_text(); ++id)
      tokens.push_back(learnt.token_bytes(id));
    put_bytes(folder / "t.tiktoken", joined(lines_of(tokens)));
    const Specials specials = {{learnt.end_of_text(), "<|endoftext|>"}};
    const auto t = Tokenizer::load_tiktoken(folder / "t.tiktoken", pattern, specials);
    EXPECT_EQ(t.merges().by_rank(), learnt.merges().by_rank());
    EXPECT_EQ(t.end_of_text(), learnt.end_of_text());
    const std::string text = file_bytes(kGolden + "text.txt");
    EXPECT_EQ(t.encode(text), learnt.encode(text));
    t.save(folder / "t.json");
    EXPECT_EQ(Tokenizer::load(folder / "t.json").fingerprint(), t.fingerprint());
    EXPECT_EQ(Json::parse(file_bytes(folder / "t.json"))["model"]["ignore_merges"], true);
  }
}

// No two tokens make "zqx": only a word that is just that is looked up.
TEST(Tiktoken, ATokenThatNoMergeMakesIsAWholeWord) {
  const Folder folder;
  put_bytes(folder / "t.tiktoken", joined(lines_of({"zqx"})));
  const auto t = Tokenizer::load_tiktoken(folder / "t.tiktoken", "gpt2", {{257, "<|endoftext|>"}});
  EXPECT_EQ(t.encode("zqx"), (std::vector<int32_t>{256}));
  EXPECT_EQ(t.encode("zqxa"), (std::vector<int32_t>{'z', 'q', 'x', 'a'}));
  EXPECT_EQ(t.encode("zqx!zqx"), (std::vector<int32_t>{256, '!', 256}));
}

TEST(Tiktoken, WhatIsWrongIsNamedByLine) {
  const Folder folder;
  const std::string path = folder / "t.tiktoken";
  const auto load = [&](std::vector<std::string> lines, Specials specials) {
    put_bytes(path, joined(lines));
    return error_of([&] { Tokenizer::load_tiktoken(path, "gpt2", specials); });
  };
  const Specials end = {{257, "<|endoftext|>"}};
  auto lines = lines_of({"ab"});
  EXPECT_EQ(load(lines, end), "no error");
  const std::vector<std::pair<std::string, std::string>> bad = {
      {"YWI", ":257: expected a token in base64, a space and a rank, got \"YWI\""},
      {"YW= 256", ":257: expected a token in base64"},
      {"YWJ= 256", ":257: expected a token in base64"},  // bits beyond the last byte
      {"Y*I= 256", ":257: expected a token in base64"},
      {" 256", ":257: expected a token in base64"},
      {"YWI= x", ":257: expected a rank of digits"},
      {"YWI= -1", ":257: expected a rank of digits"},
      {"YWI= ", ":257: expected a rank of digits"},
      {"YWI= 99999999", ":257: expected a rank below 16777216"},
      {"YQ== 256", ":257: expected a new token, not that of rank 97"},
      {"YWI= 7", ":257: expected a new rank, not that of line 8"},
  };
  for (const auto& [line, message] : bad) {
    lines[256] = line;
    expect_contains(load(lines, end), {path + message});
  }
  lines[256] = "YWI= 300";
  expect_contains(load(lines, {{301, "<|endoftext|>"}}), {path, "up to 301, got none for 256"});
  lines = lines_of({"ab"});
  expect_contains(load(lines, {}), {"expected a special token <|endoftext|>"});
  expect_contains(load(lines, {{256, "<|endoftext|>"}}), {":257: rank 256 is the id of special"});
  // "abc" of lower rank than "bc" and "ab": which one tiktoken takes is not a matter of merges.
  expect_contains(load(lines_of({"abc", "ab"}), {{258, "<|endoftext|>"}}),
                  {":257: expected a token that two tokens of lower rank make, got 3 pieces"});
  lines[97] = "QUFB 97";
  expect_contains(load(lines, end), {path, "byte 97 has no token"});
  expect_contains(error_of([&] { Tokenizer::load_tiktoken(folder / "none", "gpt2", {}); }),
                  {"none: No such file"});
}

}  // namespace
}  // namespace sluice::test
