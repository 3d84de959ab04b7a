// data/tokenizer/encoder.h -- what one thread needs to encode text.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer/tokenizer.h"

namespace sluice {

// Any number of encoders may use one tokenizer at once; each belongs to one thread at a time. It
// remembers words in a table of fixed size (2 MiB), so make one and keep it. The tokenizer has to
// outlive it. The ids do not depend on what was encoded before.
class Encoder {
 public:
  explicit Encoder(const Tokenizer& tokenizer);

  void encode(std::string_view text, std::vector<int32_t>& ids);  // appends
  std::vector<int32_t> encode(std::string_view text);

 private:
  // One cache line. A new word takes the slot of the one before.
  static constexpr size_t kWordBytes = 31, kWordIds = 7;
  struct alignas(64) Slot {
    uint64_t word[4] = {};  // the bytes, then zeros; the last byte is how many there are
    uint32_t count = 0;
    int32_t ids[kWordIds] = {};
  };
  struct Candidate {
    int32_t rank, made;
    uint32_t at;
    int32_t left, right;  // what was at `at` and after it; if that has changed, it is stale
    bool operator<(const Candidate& o) const { return rank != o.rank ? rank > o.rank : at > o.at; }
  };

  void encode_valid(std::string_view text, std::vector<int32_t>& ids);
  void encode_word(std::string_view word, std::vector<int32_t>& ids);
  void merge(std::string_view word, std::vector<int32_t>& ids);
  void merge_long(std::string_view word, std::vector<int32_t>& ids);

  const Tokenizer& tokenizer_;
  PreTokenizer::Matcher matcher_;
  std::string normal_;  // what nfc() writes to
  std::vector<Slot> slots_;
  std::vector<int32_t> long_ids_;  // merge_long: the tokens left; a merged-away one has id -1
  std::vector<uint32_t> next_, prev_;
  std::vector<Candidate> heap_;
};

}  // namespace sluice
