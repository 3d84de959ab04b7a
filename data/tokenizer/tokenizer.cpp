// data/tokenizer/tokenizer.cpp -- ids, their bytes, and what tells tokenizers apart.
#include "data/tokenizer/tokenizer.h"

#include <unordered_set>

#include "data/tokenizer/encoder.h"
#include "data/tokenizer/normalizer.h"
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
    const size_t rank = merges_.by_rank().size();
    SLUICE_CHECK(a >= 0 && a < n && b >= 0 && b < n, "merge ", rank, " of ", a, " and ", b,
                 ": only ", n, " tokens are there yet");
    const std::string text = bytes_[size_t(a)] + bytes_[size_t(b)];
    SLUICE_CHECK(made.insert(text).second, "merge ", rank, " of ", a, " and ", b,
                 " makes a token that is there already");
    bytes_.push_back(text);
    merges_.add(a, b, int32_t(bytes_.size()) - 1);
  }
  bytes_.push_back("");
  add_token({.id = int32_t(bytes_.size()) - 1, .content = kEndOfText});
  finish();
}

void Tokenizer::add_token(const AddedToken& token) {
  const int32_t id = token.special ? AddedTokens::kText : token.id;
  std::string normal;
  if (token.normalized)
    in_normalized_.add(nfc_ ? std::string(nfc(token.content, normal)) : token.content, id);
  else
    in_text_.add(token.content, id);
  added_.push_back(token);
}

void Tokenizer::finish() {
  // The name in the order of preference: of those that a file has, the first ends a document.
  for (const char* name : {kEndOfText, "<|end_of_text|>", "<｜end▁of▁sentence｜>", "[EOS]", "</s>"})
    for (const AddedToken& t : added_)
      if (end_of_text_ < 0 && t.special && t.content == name) end_of_text_ = t.id;
  if (end_of_text_ < 0)
    throw Error(
        "expected a special token <|endoftext|>, <|end_of_text|>, <｜end▁of▁sentence｜>, [EOS] or "
        "</s>, to end documents with; got none");
  if (ignore_merges_)
    for (int32_t id = 0; id < vocab_size(); ++id)
      if (!bytes_[size_t(id)].empty()) words_.emplace(bytes_[size_t(id)], id);
}

int32_t Tokenizer::whole_word(std::string_view word) const {
  if (!ignore_merges_) return -1;
  const auto at = words_.find(word);
  return at == words_.end() ? -1 : at->second;
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
  for (const AddedToken& a : added_) {
    if (a.id != end_of_text_) mix(cat(a.id, " ", a.content));
    if (!a.special) mix(a.normalized ? "in normalized text" : "in text");
  }
  if (nfc_) mix("NFC");
  if (ignore_merges_) mix("ignore_merges");
  std::string hex;
  for (int shift = 60; shift >= 0; shift -= 4) hex += "0123456789abcdef"[h >> shift & 15];
  return hex;
}

}  // namespace sluice
