// tests/data/tokenizer_file_test.cpp -- what is wrong in a tokenizer.json is named by file and key.
#include <nlohmann/json.hpp>

#include "data/tokenizer/tokenizer.h"
#include "tests/data/golden.h"
#include "tests/support/message.h"

namespace sluice::test {
namespace {

using Json = nlohmann::json;

struct Refused {
  const char* what;
  const char* pointer;  // JSON pointer of what is replaced (null: removed)
  const char* value;    // JSON; null: erase
  std::vector<std::string> parts;
};

TEST(TokenizerFile, EveryFieldThatCouldChangeAnIdIsRefusedByName) {
  const Json qwen2 = Json::parse(file_bytes(kGolden + "hf_qwen2.json"));
  const Refused cases[] = {
      {"normalizer",
       "/normalizer",
       R"({"type": "NFKC"})",
       {"normalizer.type: expected \"NFC\" or \"Sequence\", got \"NFKC\""}},
      {"normalizers",
       "/normalizer",
       R"({"type": "Sequence", "normalizers": [{"type": "Lowercase"}]})",
       {"normalizer: expected null, NFC or an empty Sequence, got"}},
      {"truncation", "/truncation", "{}", {"truncation: expected null, got {}"}},
      {"key", "/surprise", "1", {"surprise: unknown key"}},
      {"no model", "/model", nullptr, {"model: missing"}},
      {"model type",
       "/model/type",
       "\"Unigram\"",
       {"model.type: expected \"BPE\", got \"Unigram\""}},
      {"dropout", "/model/dropout", "0.1", {"model.dropout: expected null or 0.0, got 0.1"}},
      {"prefix",
       "/model/continuing_subword_prefix",
       "\"##\"",
       {"model.continuing_subword_prefix: expected null or \"\", got \"##\""}},
      {"ignore_merges",
       "/model/ignore_merges",
       "1",
       {"model.ignore_merges: expected true or false, got 1"}},
      {"no merges", "/model/merges", nullptr, {"model.merges: missing"}},
      {"merges", "/model/merges", "{}", {"model.merges: expected a list, got {}"}},
      {"merge",
       "/model/merges/3",
       "[\"a\"]",
       {"model.merges[3]: expected two tokens, got [\"a\"]"}},
      {"merge of no token",
       "/model/merges/3",
       "[\"a\", \"zqzq\"]",
       {"model.merges[3]: expected two tokens of model.vocab"}},
      {"merge to no token",
       "/model/merges/3",
       "[\"z\", \"q\"]",
       {"model.merges[3]: expected a merge whose result is in model.vocab"}},
      {"merge of no byte",
       "/model/merges/3",
       "\"a \\u4e2d\"",
       {"model.merges[3]", "stands for no byte"}},
      {"vocab", "/model/vocab", "[]", {"model.vocab: expected an object, got []"}},
      {"id",
       "/model/vocab/a",
       "-1",
       {"model.vocab[\"a\"]: expected an integer from 0 to", "got -1"}},
      {"huge id", "/model/vocab/a", "99999999999", {"model.vocab[\"a\"]: expected an integer"}},
      {"id as text",
       "/model/vocab/a",
       "\"7\"",
       {"model.vocab[\"a\"]: expected an integer", "got \"7\""}},
      {"id twice", "/model/vocab/a", "1", {"id 1 is taken by model.vocab[\"!\"]"}},
      {"byte without token", "/model/vocab/a", nullptr, {"model.vocab: byte 97 has no token"}},
      {"empty token", "/model/vocab/", "419", {"model.vocab[\"\"]: an empty token"}},
      {"no byte", "/model/vocab/\u4e2d", "419", {"model.vocab", "stands for no byte"}},
      {"added", "/added_tokens", "3", {"added_tokens: expected a list, got 3"}},
      {"no end",
       "/added_tokens",
       "[]",
       {"added_tokens: expected a special token <|endoftext|>, <|end_of_text|>"}},
      {"not special",
       "/added_tokens/0/special",
       "false",
       {"added_tokens: expected a special token <|endoftext|>", "got none"}},
      {"stripping",
       "/added_tokens/1",
       R"({"id": 420, "content": "<x>", "single_word": false, "lstrip": true, "rstrip": false,
           "normalized": false, "special": false})",
       {"added_tokens[1].lstrip: expected false, since the token is not special", "got true"}},
      {"single word",
       "/added_tokens/1",
       R"({"id": 420, "content": "<x>", "single_word": true, "lstrip": false, "rstrip": false,
           "normalized": false, "special": false})",
       {"added_tokens[1].single_word: expected false"}},
      {"a hole",
       "/model/vocab/zqzq",
       "425",
       {"model.vocab: expected a token for each id up to 425, got none for 420"}},
      {"empty special",
       "/added_tokens/0/content",
       "\"\"",
       {"added_tokens[0].content: expected some text"}},
      {"pre-tokenizer",
       "/pre_tokenizer",
       "{\"type\": \"Whitespace\"}",
       {"pre_tokenizer: expected ByteLevel, or a Sequence that ends with it, got"}},
      {"no pre-tokenizer",
       "/pre_tokenizer",
       "null",
       {"pre_tokenizer: expected ByteLevel", "got null"}},
      {"prefix space",
       "/pre_tokenizer/pretokenizers/1/add_prefix_space",
       "true",
       {"pre_tokenizer.pretokenizers[1].add_prefix_space: expected false, got true"}},
      {"regex",
       "/pre_tokenizer/pretokenizers/0/pattern/Regex",
       "\"\\\\w+\"",
       {"pre_tokenizer.pretokenizers[0].pattern.Regex: regex", "\"\\w\" is not one of"}},
      {"three",
       "/pre_tokenizer/pretokenizers/2",
       "{}",
       {"pre_tokenizer.pretokenizers: expected a list that ends with ByteLevel"}},
      {"behavior",
       "/pre_tokenizer/pretokenizers/0/behavior",
       "\"Removed\"",
       {"behavior: expected \"Isolated\", got \"Removed\""}},
      {"decoder", "/decoder", "{\"type\": \"WordPiece\"}", {"decoder: expected ByteLevel"}},
      {"post",
       "/post_processor",
       "{\"type\": \"BertProcessing\"}",
       {"post_processor: expected ByteLevel, TemplateProcessing or a Sequence of these"}},
  };
  const Folder folder;
  const std::string path = folder / "t.json";
  for (const Refused& c : cases) {
    SCOPED_TRACE(c.what);
    Json file = qwen2;
    const Json::json_pointer at(c.pointer);
    if (c.value) {
      file[at] = Json::parse(c.value);
    } else {
      file[at.parent_pointer()].erase(at.back());
    }
    put_bytes(path, file.dump());
    const std::string message = error_of([&] { Tokenizer::load(path); });
    expect_contains(message, {path + ": "});
    expect_contains(message, c.parts);
  }
}

TEST(TokenizerFile, BrokenFiles) {
  const Folder folder;
  const std::string path = folder / "t.json";
  const auto load = [&] { return error_of([&] { Tokenizer::load(path); }); };
  expect_contains(load(), {path, "No such file"});
  put_bytes(path, "");
  expect_contains(load(), {path, "line 1, column 1"});
  put_bytes(path, file_bytes(kGolden + "hf_gpt2.json").substr(0, 3000));
  expect_contains(load(), {path, "line 1, column 3001"});
  put_bytes(path, "[1]");
  expect_contains(load(), {path, "file: expected an object, got [1]"});
  Json file = Json::parse(file_bytes(kGolden + "hf_gpt2.json"));
  Json& merges = file["model"]["merges"];
  merges.push_back(merges[0]);
  put_bytes(path, file.dump());
  expect_contains(load(), {"a merge that is not listed before"});
  // One text twice would give one token two ids; JSON itself does not forbid it.
  std::string twice = file_bytes(kGolden + "hf_gpt2.json");
  twice.replace(twice.find("\"!\":1,"), 6, "\"!\":1,\"!\":419,");
  put_bytes(path, twice);
  expect_contains(load(), {path, "\"!\"", "twice"});
}

// GPT-2's own file lists merges as "a b", and its special token in the vocabulary too.
TEST(TokenizerFile, OlderFormsAreRead) {
  const Folder folder;
  const std::string path = folder / "t.json";
  Json file = Json::parse(file_bytes(kGolden + "hf_gpt2.json"));
  for (Json& m : file["model"]["merges"])
    if (m.is_array()) m = m[0].get<std::string>() + " " + m[1].get<std::string>();
  file["model"]["vocab"]["<|endoftext|>"] = 0;
  put_bytes(path, file.dump());
  EXPECT_EQ(Tokenizer::load(path).fingerprint(),
            Tokenizer::load(kGolden + "hf_gpt2.json").fingerprint());
  file["model"]["vocab"]["<|endoftext|>"] = 5;
  put_bytes(path, file.dump());
  expect_contains(error_of([&] { Tokenizer::load(path); }),
                  {"model.vocab[\"<|endoftext|>\"]: expected 0 as in added_tokens, got 5"});
}

}  // namespace
}  // namespace sluice::test
