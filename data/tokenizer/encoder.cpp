// data/tokenizer/encoder.cpp -- words are looked up; new ones are merged by rank.
#include "data/tokenizer/encoder.h"

#include <algorithm>
#include <cstring>

#include "data/tokenizer/normalizer.h"
#include "data/tokenizer/utf8.h"
#include "kernels/base/check.h"

namespace sluice {

constexpr size_t kSlots = 1 << 15;
constexpr size_t kScannedBytes = 64;  // up to here a scan for the lowest rank beats the heap

Encoder::Encoder(const Tokenizer& tokenizer)
    : tokenizer_(tokenizer), matcher_(tokenizer.pretokenizer()), slots_(kSlots) {}

std::vector<int32_t> Encoder::encode(std::string_view text) {
  std::vector<int32_t> ids;
  encode(text, ids);
  return ids;
}

// Of what is not UTF-8 each byte is its token; the runs between are encoded as texts of their own.
void Encoder::encode(std::string_view text, std::vector<int32_t>& ids) {
  for (size_t at = 0; at < text.size();) {
    const size_t valid = utf8_run(text, at);
    encode_valid(text.substr(at, valid), ids);
    at += valid;
    if (at < text.size()) ids.push_back(tokenizer_.byte_token(uint8_t(text[at++])));
  }
}

void Encoder::encode_valid(std::string_view text, std::vector<int32_t>& ids) {
  const auto token = [&](int32_t id) { ids.push_back(id); };
  const auto plain = [&](std::string_view piece) {
    matcher_.split_valid(piece, [&](std::string_view word) { encode_word(word, ids); });
  };
  const auto not_in_text = [&](std::string_view piece) {
    if (tokenizer_.normalizes()) piece = nfc(piece, normal_);
    tokenizer_.added_in_normalized().split(piece, plain, token);
  };
  tokenizer_.added_in_text().split(text, not_in_text, token);
}

void Encoder::encode_word(std::string_view word, std::vector<int32_t>& ids) {
  if (word.size() > kWordBytes) return merge(word, ids);
  Slot key;
  std::memcpy(key.word, word.data(), word.size());
  key.word[3] |= uint64_t(word.size()) << 56;
  uint64_t hash = 0;
  for (const uint64_t w : key.word) hash = (hash ^ w) * 0x9E3779B97F4A7C15u, hash ^= hash >> 32;
  Slot& slot = slots_[hash % kSlots];
  if (std::memcmp(slot.word, key.word, sizeof key.word) == 0) {
    ids.insert(ids.end(), slot.ids, slot.ids + slot.count);
    return;
  }
  const size_t before = ids.size();
  merge(word, ids);
  const size_t count = ids.size() - before;
  if (count > kWordIds) return;
  key.count = uint32_t(count);
  std::copy(ids.begin() + int64_t(before), ids.end(), key.ids);
  slot = key;
}

// Merges the lowest-ranked pair, the leftmost of several, until none is left.
void Encoder::merge(std::string_view word, std::vector<int32_t>& out) {
  if (const int32_t id = tokenizer_.whole_word(word); id >= 0) return out.push_back(id);
  if (word.size() > kScannedBytes) return merge_long(word, out);
  const MergeTable& merges = tokenizer_.merges();
  int32_t ids[kScannedBytes];
  MergeTable::Merge pairs[kScannedBytes];  // [i]: of ids[i] and ids[i + 1]
  size_t n = word.size();
  for (size_t i = 0; i < n; ++i) ids[i] = tokenizer_.byte_token(uint8_t(word[i]));
  for (size_t i = 0; i + 1 < n; ++i) pairs[i] = merges.find(ids[i], ids[i + 1]);
  while (n > 1) {
    size_t at = 0;
    for (size_t i = 1; i + 1 < n; ++i)
      if (pairs[i].rank < pairs[at].rank) at = i;
    if (pairs[at].rank == kNoRank) break;
    ids[at] = pairs[at].made;
    --n;
    for (size_t i = at + 1; i < n; ++i) ids[i] = ids[i + 1], pairs[i] = pairs[i + 1];
    if (at + 1 < n) pairs[at] = merges.find(ids[at], ids[at + 1]);
    if (at > 0) pairs[at - 1] = merges.find(ids[at - 1], ids[at]);
  }
  out.insert(out.end(), ids, ids + n);
}

// The same result in O(n log n): a scan per merge would take minutes for a word of 100 kB.
void Encoder::merge_long(std::string_view word, std::vector<int32_t>& out) {
  SLUICE_CHECK(word.size() < 0xFFFFFFFF, "a word of ", word.size(), " bytes");
  const MergeTable& merges = tokenizer_.merges();
  const uint32_t n = uint32_t(word.size());
  std::vector<int32_t>& ids = long_ids_;
  ids.resize(n), next_.resize(n), prev_.resize(n);
  heap_.clear();
  const auto candidate = [&](uint32_t i) {
    const int32_t left = ids[i], right = ids[next_[i]];
    const MergeTable::Merge m = merges.find(left, right);
    return Candidate{m.rank, m.made, i, left, right};
  };
  const auto offer = [&](uint32_t i) {
    if (next_[i] >= n) return;
    const Candidate c = candidate(i);
    if (c.rank == kNoRank) return;
    heap_.push_back(c);
    std::push_heap(heap_.begin(), heap_.end());
  };
  for (uint32_t i = 0; i < n; ++i) {
    ids[i] = tokenizer_.byte_token(uint8_t(word[i]));
    next_[i] = i + 1, prev_[i] = i - 1;
  }
  for (uint32_t i = 0; i + 1 < n; ++i)
    if (const Candidate c = candidate(i); c.rank != kNoRank) heap_.push_back(c);
  std::make_heap(heap_.begin(), heap_.end());
  while (!heap_.empty()) {
    const Candidate c = heap_.front();
    std::pop_heap(heap_.begin(), heap_.end());
    heap_.pop_back();
    const uint32_t i = c.at, j = next_[i];
    if (ids[i] != c.left || j >= n || ids[j] != c.right) continue;
    ids[i] = c.made;
    ids[j] = -1;
    next_[i] = next_[j];
    if (next_[i] < n) prev_[next_[i]] = i;
    offer(i);
    if (i > 0) offer(prev_[i]);
  }
  for (uint32_t i = 0; i < n; i = next_[i]) out.push_back(ids[i]);
}

}  // namespace sluice
