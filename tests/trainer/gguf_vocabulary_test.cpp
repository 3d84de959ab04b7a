// tests/trainer/gguf_vocabulary_test.cpp -- which tokenizers llama.cpp can be told of, and how.
#include "trainer/export/gguf_vocabulary.h"

#include <gtest/gtest.h>

#include "tests/support/folder.h"
#include "tests/support/message.h"

namespace sluice {
namespace {

using test::error_of;
using test::expect_contains;
using Change = std::pair<std::string, std::string>;

const std::string kFolder = std::string(SLUICE_SOURCE_DIR) + "/tests/golden/tokenizer/";
const Change kNoNfc{"\"normalizer\":{\"type\":\"NFC\"}", "\"normalizer\":null"};
const std::string kLooksUp = "\"ignore_merges\":true", kMerges = "\"ignore_merges\":false";

class GgufVocabulary : public ::testing::Test {
 protected:
  // Published files, read and changed.
  std::string error(const std::string& name, const std::vector<Change>& changes = {}) const {
    std::string text = read_text(kFolder + name);
    for (const auto& [from, to] : changes) {
      const size_t at = text.find(from);
      EXPECT_NE(at, std::string::npos) << from;
      text.replace(at, from.size(), to);
    }
    replace_text(folder_ / "t.json", text);
    return error_of([&] {
      const Tokenizer t = Tokenizer::load(folder_ / "t.json");
      for (const auto& [key, value] : gguf_vocabulary(t, t.vocab_size()))
        if (key == "tokenizer.ggml.pre") pre_ = to_string(value);
    });
  }
  static int vocab_size(const std::string& name) {
    return int(Tokenizer::load(kFolder + name).vocab_size());
  }
  test::Folder folder_;
  mutable std::string pre_;
};

TEST_F(GgufVocabulary, NamesOfPreTokenizers) {
  const auto pre_of = [&](const std::string& file, const std::vector<Change>& changes = {}) {
    EXPECT_EQ(error(file, changes), "no error") << file;
    return pre_;
  };
  EXPECT_EQ(pre_of("ours_gpt2.json"), "\"granite-docling\"");
  EXPECT_EQ(pre_of("ours_qwen2.json"), "\"qwen2\"");
  EXPECT_EQ(pre_of("hf_deepseek-v3.json"), "\"deepseek-v3\"");
  // Whether words are looked up is a part of the name.
  EXPECT_EQ(pre_of("hf_cl100k.json"), "\"llama-bpe\"");
  EXPECT_EQ(pre_of("hf_cl100k.json", {{kLooksUp, kMerges}}), "\"dbrx\"");
  // No matter if merges make every token.
  EXPECT_EQ(pre_of("ours_gpt2.json", {{"\"ignore_merges\": false", "\"ignore_merges\": true"}}),
            "\"granite-docling\"");
}

TEST_F(GgufVocabulary, WhatItHasNotIsRefused) {
  expect_contains(error("hf_o200k.json"), {"pattern is o200k", "expected one of gpt2, qwen2"});
  expect_contains(error("hf_gpt2-digits.json"), {"has no pre-tokenizer for"});
  expect_contains(error("hf_kimi.json", {kNoNfc}), {"pattern is kimi"});
  expect_contains(error("hf_kimi.json"), {"normalizer (NFC)", "\"normalizer\": null"});
  // A word that no merge makes: looked up, it is one token.
  expect_contains(error("ours_qwen2.json", {{"\"ignore_merges\": false", "\"ignore_merges\": true"},
                                            {"[\n    \"t\",\n    \"h\"\n   ],", ""}}),
                  {"with ignore_merges, and some of its tokens no merge makes"});
}

// llama.cpp looks for the longest first: in "<a><b>" it would find "a><b" and not "<a>".
TEST_F(GgufVocabulary, AddedTokensThatMayOverlap) {
  const std::string begin = "\"added_tokens\":[";
  const auto token = [](int id, const std::string& content) {
    return cat("{\"id\":", id, ",\"content\":\"", content,
               "\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,"
               "\"special\":false},");
  };
  const int n = vocab_size("hf_gpt2.json");
  EXPECT_EQ(
      error("hf_gpt2.json", {{begin, begin + token(n, "<think>") + token(n + 1, "</think>")}}),
      "no error");
  expect_contains(error("hf_gpt2.json", {{begin, begin + token(n, "<a>") + token(n + 1, "a><b")}}),
                  {"added tokens <a> and a><b may overlap"});
}

}  // namespace
}  // namespace sluice
