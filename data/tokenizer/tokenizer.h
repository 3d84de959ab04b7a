// data/tokenizer/tokenizer.h -- byte-level BPE that reads and writes Hugging Face's tokenizer.json.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer/bpe_train.h"
#include "data/tokenizer/merge_table.h"
#include "data/tokenizer/pretokenizer.h"

namespace sluice {

constexpr const char* kEndOfText = "<|endoftext|>";

// Any bytes survive encode and decode unchanged. Plain text never becomes a special token. It does
// not change after it is made, so any number of threads may use it.
class Tokenizer {
 public:
  // Ids: 256 bytes in byte order, the merges, then "<|endoftext|>".
  Tokenizer(const BpeTraining& training, const std::string& pattern);
  // Reads model type BPE with the GPT-2 or Qwen2 pre-tokenizer; whatever else could change an id is
  // refused by file and key.
  static Tokenizer load(const std::string& path);
  void save(const std::string& path) const;

  // For a text now and then; whoever has many keeps an Encoder (encoder.h), one a thread.
  std::vector<int32_t> encode(std::string_view text) const;
  std::string decode(std::span<const int32_t> ids) const;  // specials are left out

  int64_t vocab_size() const { return int64_t(bytes_.size()); }
  const std::string& token_bytes(int32_t id) const;  // empty for specials
  int32_t end_of_text() const { return end_of_text_; }
  const std::string& pattern() const { return cut_.pattern(); }
  std::string fingerprint() const;  // changes with any id or merge

  // What an Encoder works with.
  const PreTokenizer& pretokenizer() const { return cut_; }
  const MergeTable& merges() const { return merges_; }
  int32_t byte_token(uint8_t byte) const { return of_byte_[byte]; }

 private:
  explicit Tokenizer(PreTokenizer cut) : cut_(std::move(cut)) {}
  friend class JsonReader;  // tokenizer_read.cpp: fills one in, part by part

  struct Added {
    int32_t id;
    std::string content;
  };
  PreTokenizer cut_;
  std::vector<std::string> bytes_;  // by id; empty for specials and for ids that nothing has
  std::vector<int32_t> of_byte_ = std::vector<int32_t>(256, -1);
  MergeTable merges_;
  std::vector<Added> added_;  // the specials
  int32_t end_of_text_ = -1;
};

}  // namespace sluice
