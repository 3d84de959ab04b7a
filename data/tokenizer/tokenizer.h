// data/tokenizer/tokenizer.h -- byte-level BPE that reads and writes Hugging Face's tokenizer.json.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "data/tokenizer/added_tokens.h"
#include "data/tokenizer/bpe_train.h"
#include "data/tokenizer/merge_table.h"
#include "data/tokenizer/pretokenizer.h"

namespace sluice {

constexpr const char* kEndOfText = "<|endoftext|>";

// Plain text never becomes a special token. Any bytes survive encode and decode unchanged, except
// that a tokenizer with a normalizer gives the normal form. It does not change after it is made, so
// any number of threads may use it.
class Tokenizer {
 public:
  // Ids: 256 bytes in byte order, the merges, then "<|endoftext|>".
  Tokenizer(const BpeTraining& training, const std::string& pattern);
  // What could change an id and is not supported is refused by file and key (README.md).
  static Tokenizer load(const std::string& path);
  // A file of OpenAI's tiktoken: a token in base64 and its rank a line. The file does not say the
  // pattern (a name or a regex) nor the special tokens, (id, content) each.
  static Tokenizer load_tiktoken(const std::string& path, const std::string& pattern,
                                 const std::vector<std::pair<int32_t, std::string>>& specials);
  void save(const std::string& path) const;

  // For a text now and then; whoever has many keeps an Encoder (encoder.h), one a thread.
  std::vector<int32_t> encode(std::string_view text) const;
  std::string decode(std::span<const int32_t> ids) const;  // specials are left out

  int64_t vocab_size() const { return int64_t(bytes_.size()); }
  const std::string& token_bytes(int32_t id) const;  // empty for specials
  int32_t end_of_text() const { return end_of_text_; }
  std::string pattern() const { return pattern_name(cut_.pattern()); }
  std::string fingerprint() const;  // changes with any id or merge

  // What an Encoder works with.
  const PreTokenizer& pretokenizer() const { return cut_; }
  const MergeTable& merges() const { return merges_; }
  int32_t byte_token(uint8_t byte) const { return of_byte_[byte]; }
  bool normalizes() const { return nfc_; }
  bool looks_words_up() const { return ignore_merges_; }  // before it merges
  const std::vector<AddedToken>& added() const { return added_; }
  const AddedTokens& added_in_text() const { return in_text_; }
  const AddedTokens& added_in_normalized() const { return in_normalized_; }
  int32_t whole_word(std::string_view word) const;  // its id if no merge is to be asked, else -1

 private:
  explicit Tokenizer(PreTokenizer cut) : cut_(std::move(cut)) {}
  void add_token(const AddedToken& token);
  void finish();                // checks and tables, when every token and merge is there
  friend class JsonReader;      // tokenizer_read.cpp: these two fill one in, part by part
  friend class TiktokenReader;  // tiktoken.cpp

  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view s) const { return std::hash<std::string_view>()(s); }
  };
  PreTokenizer cut_;
  bool nfc_ = false;
  bool ignore_merges_ = false;      // a word that is a token is that token
  std::vector<std::string> bytes_;  // by id; empty for specials
  std::vector<int32_t> of_byte_ = std::vector<int32_t>(256, -1);
  MergeTable merges_;
  std::vector<AddedToken> added_;
  AddedTokens in_text_, in_normalized_;
  std::unordered_map<std::string, int32_t, Hash, std::equal_to<>> words_;  // for ignore_merges
  int32_t end_of_text_ = -1;
  std::string post_processor_ = "null";  // JSON, kept for others: it adds special tokens
};

}  // namespace sluice
