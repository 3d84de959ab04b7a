// data/tokenizer/tokenizer.cpp -- ids, their bytes, and what tells tokenizers apart.
#include "data/tokenizer/tokenizer.h"

#include <unordered_set>

#include "data/tokenizer/encoder.h"
#include "kernels/base/check.h"

namespace sluice {

Tokenizer::Tokenizer(const BpeTraining& training, const std::string& pattern) : cut_(pattern) {
  for (int b = 0; b < 256; ++b) {
    bytes_.push_back(std::string(1, char(b)));
    of_byte_[size_t(b)] = b;
  }
  std::unordered_set<std::string> made;
  for (const auto& [a, b] : training.merges) {
    const int64_t n = vocab_size();
    SLUICE_CHECK(a >= 0 && a < n && b >= 0 && b < n, "merge ", merges_.by_rank().size(), " of ", a,
                 " and ", b, ": only ", n, " tokens are there yet");
    const std::string text = bytes_[size_t(a)] + bytes_[size_t(b)];
    SLUICE_CHECK(made.insert(text).second, "merge ", merges_.by_rank().size(), " of ", a, " and ",
                 b, " makes a token that is there already");
    bytes_.push_back(text);
    merges_.add(a, b, int32_t(bytes_.size()) - 1);
  }
  end_of_text_ = int32_t(bytes_.size());
  bytes_.push_back("");
  added_.push_back({end_of_text_, kEndOfText});
}

const std::string& Tokenizer::token_bytes(int32_t id) const {
  SLUICE_CHECK(id >= 0 && id < vocab_size(), "token ", id, " of a vocabulary of ", vocab_size());
  return bytes_[size_t(id)];
}

std::vector<int32_t> Tokenizer::encode(std::string_view text) const {
  return Encoder(*this).encode(text);
}

std::string Tokenizer::decode(std::span<const int32_t> ids) const {
  std::string text;
  for (const int32_t id : ids) text += token_bytes(id);
  return text;
}

std::string Tokenizer::fingerprint() const {
  uint64_t h = 0xcbf29ce484222325u;  // FNV-1a over pattern, vocabulary and merges
  auto mix = [&](std::string_view s) {
    for (const char c : s) h = (h ^ uint8_t(c)) * 0x100000001b3u;
    h = (h ^ 0xff) * 0x100000001b3u;
  };
  mix(pattern());
  for (const std::string& b : bytes_) mix(b);
  for (const auto& [a, b] : merges_.by_rank()) mix(cat(a, " ", b));
  for (const Added& a : added_)
    if (a.id != end_of_text_) mix(cat(a.id, " ", a.content));
  std::string hex;
  for (int shift = 60; shift >= 0; shift -= 4) hex += "0123456789abcdef"[h >> shift & 15];
  return hex;
}

}  // namespace sluice
