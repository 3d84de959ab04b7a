// data/tokenizer/bpe_train.cpp -- over distinct words with their counts; a heap of pairs whose stale
// entries are thrown away as they come up.
#include "data/tokenizer/bpe_train.h"

#include <algorithm>
#include <queue>
#include <unordered_map>
#include <unordered_set>

#include "data/tokenizer/pretokenizer.h"
#include "kernels/base/check.h"

namespace sluice {

namespace {

using Pair = uint64_t;  // left << 32 | right
Pair make_pair_key(int32_t a, int32_t b) {
  return uint64_t(uint32_t(a)) << 32 | uint32_t(b);
}

struct Word {
  std::vector<int32_t> ids;
  int64_t count;
};

struct Candidate {
  int64_t count;
  Pair pair;
  bool operator<(const Candidate& o) const {  // the top of the heap: most frequent, then lowest ids
    return count != o.count ? count < o.count : pair > o.pair;
  }
};

class Trainer {
 public:
  Trainer(const std::vector<std::string>& documents, const std::string& pattern) {
    const PreTokenizer cut(pattern);
    std::unordered_map<std::string, int64_t> counts;
    for (const std::string& d : documents)
      cut.split(d, [&](std::string_view w) { ++counts[std::string(w)]; });
    for (const auto& [text, count] : counts) {
      Word w{{}, count};
      for (const char ch : text) w.ids.push_back(uint8_t(ch));
      words_.push_back(std::move(w));
    }
    for (size_t w = 0; w < words_.size(); ++w) add_pairs(w, 1);
    for (const auto& [pair, count] : counts_) heap_.push({count, pair});
  }

  bool merge_best(int32_t id, std::pair<int32_t, int32_t>& merged) {
    while (!heap_.empty() && counts_[heap_.top().pair] != heap_.top().count) heap_.pop();
    if (heap_.empty() || heap_.top().count < 2) return false;
    const Pair best = heap_.top().pair;
    const auto a = int32_t(best >> 32), b = int32_t(uint32_t(best));
    changed_.clear();
    const std::unordered_set<uint32_t> where = std::move(where_[best]);
    for (const uint32_t w : where) {
      add_pairs(w, -1);
      replace(words_[w].ids, a, b, id);
      add_pairs(w, 1);
    }
    for (const Pair p : changed_)
      if (const int64_t n = counts_[p]; n > 0) heap_.push({n, p});
    where_.erase(best);
    merged = {a, b};
    return true;
  }

 private:
  void add_pairs(size_t w, int sign) {
    const Word& word = words_[w];
    for (size_t i = 0; i + 1 < word.ids.size(); ++i) {
      const Pair p = make_pair_key(word.ids[i], word.ids[i + 1]);
      counts_[p] += sign * word.count;
      changed_.insert(p);
      if (sign > 0) where_[p].insert(uint32_t(w));
    }
  }
  static void replace(std::vector<int32_t>& ids, int32_t a, int32_t b, int32_t id) {
    size_t to = 0;
    for (size_t i = 0; i < ids.size(); ++to) {
      const bool hit = i + 1 < ids.size() && ids[i] == a && ids[i + 1] == b;
      ids[to] = hit ? id : ids[i];
      i += hit ? 2 : 1;
    }
    ids.resize(to);
  }

  std::vector<Word> words_;
  std::unordered_map<Pair, int64_t> counts_;
  std::unordered_map<Pair, std::unordered_set<uint32_t>> where_;  // words that (may) hold the pair
  std::unordered_set<Pair> changed_;
  std::priority_queue<Candidate> heap_;
};

}  // namespace

BpeTraining train_bpe(const std::vector<std::string>& documents, const std::string& pattern,
                      int64_t merges, const std::function<void(int64_t)>& progress) {
  SLUICE_CHECK(merges >= 0, merges, " merges");
  Trainer trainer(documents, pattern);
  BpeTraining out;
  std::pair<int32_t, int32_t> merged;
  while (int64_t(out.merges.size()) < merges &&
         trainer.merge_best(256 + int32_t(out.merges.size()), merged)) {
    out.merges.push_back(merged);
    if (progress) progress(int64_t(out.merges.size()));
  }
  return out;
}

}  // namespace sluice
