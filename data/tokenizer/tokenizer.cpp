// data/tokenizer/tokenizer.cpp -- encoding by merge rank, with a memory of words.
#include "data/tokenizer/tokenizer.h"

#include <limits>
#include <queue>
#include <unordered_set>

#include "kernels/base/check.h"

namespace sluice {

constexpr size_t kRememberedWords = 1 << 18;
constexpr size_t kRememberedBytes = 64;  // longer words hardly come again
constexpr size_t kScannedBytes = 32;     // up to here a scan beats the heap

static uint64_t pair_key(int32_t a, int32_t b) {
  return uint64_t(uint32_t(a)) << 32 | uint32_t(b);
}

Tokenizer::Tokenizer(const BpeTraining& training, const std::string& pattern) : cut_(pattern) {
  for (int b = 0; b < 256; ++b) {
    bytes_.push_back(std::string(1, char(b)));
    of_byte_[size_t(b)] = b;
  }
  std::unordered_set<std::string> made;
  for (const auto& [a, b] : training.merges) {
    const int64_t n = vocab_size();
    SLUICE_CHECK(a >= 0 && a < n && b >= 0 && b < n, "merge ", merges_.size(), " of ", a, " and ",
                 b, ": only ", n, " tokens are there yet");
    const std::string text = bytes_[size_t(a)] + bytes_[size_t(b)];
    SLUICE_CHECK(made.insert(text).second, "merge ", merges_.size(), " of ", a, " and ", b,
                 " makes a token that is there already");
    bytes_.push_back(text);
    add_merge(a, b, int32_t(bytes_.size()) - 1);
  }
  end_of_text_ = int32_t(bytes_.size());
  bytes_.push_back("");
  added_.push_back({end_of_text_, kEndOfText});
}

void Tokenizer::add_merge(int32_t a, int32_t b, int32_t made) {
  by_pair_.emplace(pair_key(a, b), Merge{int32_t(merges_.size()), made});
  merges_.push_back({a, b});
}

const std::string& Tokenizer::token_bytes(int32_t id) const {
  SLUICE_CHECK(id >= 0 && id < vocab_size(), "token ", id, " of a vocabulary of ", vocab_size());
  return bytes_[size_t(id)];
}

// Merges the lowest-ranked pair, the leftmost of several, until none is left.
void Tokenizer::encode_word(std::string_view word, std::vector<int32_t>& out) const {
  std::vector<int32_t> ids;
  ids.reserve(word.size());
  for (const char ch : word) ids.push_back(of_byte_[uint8_t(ch)]);
  if (ids.size() > kScannedBytes) return merge_long(ids, out);
  while (ids.size() > 1) {
    Merge best{std::numeric_limits<int32_t>::max(), -1};
    size_t at = 0;
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      const auto m = by_pair_.find(pair_key(ids[i], ids[i + 1]));
      if (m != by_pair_.end() && m->second.rank < best.rank) {
        best = m->second;
        at = i;
      }
    }
    if (best.made < 0) break;
    ids[at] = best.made;
    ids.erase(ids.begin() + int64_t(at) + 1);
  }
  out.insert(out.end(), ids.begin(), ids.end());
}

// The same result in O(n log n): a scan per merge would take minutes for a word of 100 kB.
void Tokenizer::merge_long(std::vector<int32_t>& ids, std::vector<int32_t>& out) const {
  struct Candidate {
    int32_t rank, made;
    size_t at;
    uint64_t pair;  // what was at `at` and after it; if that has changed, the candidate is stale
    bool operator<(const Candidate& o) const { return rank != o.rank ? rank > o.rank : at > o.at; }
  };
  const size_t n = ids.size();
  std::vector<size_t> next(n), prev(n);  // the tokens left; a merged-away one has id -1
  for (size_t i = 0; i < n; ++i) next[i] = i + 1, prev[i] = i - 1;
  std::priority_queue<Candidate> heap;
  const auto offer = [&](size_t i) {
    if (next[i] >= n) return;
    const uint64_t pair = pair_key(ids[i], ids[next[i]]);
    if (const auto m = by_pair_.find(pair); m != by_pair_.end())
      heap.push({m->second.rank, m->second.made, i, pair});
  };
  for (size_t i = 0; i < n; ++i) offer(i);
  while (!heap.empty()) {
    const Candidate c = heap.top();
    heap.pop();
    const size_t i = c.at, j = next[i];
    if (ids[i] < 0 || j >= n || pair_key(ids[i], ids[j]) != c.pair) continue;
    ids[i] = c.made;
    ids[j] = -1;
    next[i] = next[j];
    if (next[i] < n) prev[next[i]] = i;
    offer(i);
    if (i > 0) offer(prev[i]);
  }
  for (size_t i = 0; i < n; i = next[i]) out.push_back(ids[i]);
}

std::vector<int32_t> Tokenizer::encode(std::string_view text) const {
  std::vector<int32_t> out;
  std::string key;
  cut_.split(text, [&](std::string_view word) {
    key.assign(word);
    const auto known = words_.find(key);
    if (known != words_.end()) {
      out.insert(out.end(), known->second.begin(), known->second.end());
      return;
    }
    const size_t before = out.size();
    encode_word(word, out);
    if (word.size() <= kRememberedBytes && words_.size() < kRememberedWords)
      words_.emplace(key, std::vector<int32_t>(out.begin() + int64_t(before), out.end()));
  });
  return out;
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
  for (const auto& [a, b] : merges_) mix(cat(a, " ", b));
  for (const Added& a : added_)
    if (a.id != end_of_text_) mix(cat(a.id, " ", a.content));
  std::string hex;
  for (int shift = 60; shift >= 0; shift -= 4) hex += "0123456789abcdef"[h >> shift & 15];
  return hex;
}

}  // namespace sluice
