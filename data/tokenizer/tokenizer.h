// data/tokenizer/tokenizer.h -- byte-level BPE that reads and writes Hugging Face's tokenizer.json.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "data/tokenizer/bpe_train.h"
#include "data/tokenizer/pretokenizer.h"

namespace sluice {

constexpr const char* kEndOfText = "<|endoftext|>";

// Any bytes survive encode and decode unchanged. Plain text never becomes a special token. Not for
// several threads at once: it remembers the words that it has met.
class Tokenizer {
 public:
  // Ids: 256 bytes in byte order, the merges, then "<|endoftext|>".
  Tokenizer(const BpeTraining& training, const std::string& pattern);
  // Reads model type BPE with the GPT-2 or Qwen2 pre-tokenizer; whatever else could change an id is
  // refused by file and key.
  static Tokenizer load(const std::string& path);
  void save(const std::string& path) const;

  std::vector<int32_t> encode(std::string_view text) const;
  std::string decode(std::span<const int32_t> ids) const;  // specials are left out

  int64_t vocab_size() const { return int64_t(bytes_.size()); }
  const std::string& token_bytes(int32_t id) const;  // empty for specials
  int32_t end_of_text() const { return end_of_text_; }
  const std::string& pattern() const { return cut_.pattern(); }
  std::string fingerprint() const;  // changes with any id or merge

 private:
  explicit Tokenizer(PreTokenizer cut) : cut_(std::move(cut)) {}
  void add_merge(int32_t a, int32_t b, int32_t made);
  void encode_word(std::string_view word, std::vector<int32_t>& out) const;
  void merge_long(std::vector<int32_t>& ids, std::vector<int32_t>& out) const;
  friend class JsonReader;  // tokenizer_read.cpp: fills one in, part by part

  struct Merge {
    int32_t rank, made;
  };
  struct Added {
    int32_t id;
    std::string content;
  };
  PreTokenizer cut_;
  std::vector<std::string> bytes_;  // by id; empty for specials and for ids that nothing has
  std::vector<int32_t> of_byte_ = std::vector<int32_t>(256, -1);
  std::vector<std::pair<int32_t, int32_t>> merges_;  // in rank order
  std::unordered_map<uint64_t, Merge> by_pair_;
  std::vector<Added> added_;  // the specials
  int32_t end_of_text_ = -1;
  mutable std::unordered_map<std::string, std::vector<int32_t>> words_;
};

}  // namespace sluice
