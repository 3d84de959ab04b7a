// data/tokenizer/bpe_train.cpp -- merges counted words, the next pair from a heap with stale
// entries.
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
  explicit Trainer(const WordCounts& counts) {
    for (const auto& [text, count] : counts) {
      Word w{{}, count};
      for (const char ch : text) w.ids.push_back(uint8_t(ch));
      words_.push_back(std::move(w));
    }
    for (uint32_t w = 0; w < uint32_t(words_.size()); ++w)
      for (size_t i = 0; i + 1 < words_[w].ids.size(); ++i)
        change(make_pair_key(words_[w].ids[i], words_[w].ids[i + 1]), words_[w].count, w);
    changed_.clear();
    for (const auto& [pair, count] : counts_) heap_.push({count, pair});
  }

  bool merge_best(int32_t id, std::pair<int32_t, int32_t>& merged) {
    while (!heap_.empty() && heap_.top().count != counts_[heap_.top().pair]) heap_.pop();
    if (heap_.empty() || heap_.top().count < 2) return false;
    const Pair best = heap_.top().pair;
    merged = {int32_t(best >> 32), int32_t(uint32_t(best))};
    const std::unordered_set<uint32_t> where = std::move(where_[best]);
    where_.erase(best);
    for (const uint32_t w : where) replace(w, merged.first, merged.second, id);
    for (const Pair p : changed_)
      if (const int64_t n = counts_[p]; n > 0) heap_.push({n, p});
    changed_.clear();
    return true;
  }

 private:
  void change(Pair p, int64_t by, uint32_t w) {
    counts_[p] += by;
    changed_.insert(p);
    if (by > 0) where_[p].insert(w);
  }
  // Touches the counts next to each replaced pair only: words of scripts without spaces are long.
  void replace(uint32_t w, int32_t a, int32_t b, int32_t id) {
    std::vector<int32_t>& ids = words_[w].ids;
    const int64_t count = words_[w].count;
    size_t to = 0;
    for (size_t i = 0; i < ids.size(); ++to) {
      if (i + 1 == ids.size() || ids[i] != a || ids[i + 1] != b) {
        ids[to] = ids[i++];
        continue;
      }
      change(make_pair_key(a, b), -count, w);
      if (to > 0) {
        change(make_pair_key(ids[to - 1], a), -count, w);
        change(make_pair_key(ids[to - 1], id), count, w);
      }
      if (i + 2 < ids.size()) {
        change(make_pair_key(b, ids[i + 2]), -count, w);
        change(make_pair_key(id, ids[i + 2]), count, w);
      }
      ids[to] = id;
      i += 2;
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
  PreTokenizer::Matcher matcher{PreTokenizer(pattern)};
  WordCounts words;
  for (const std::string& d : documents)
    matcher.split(d, [&](std::string_view w) { ++words[std::string(w)]; });
  return train_bpe(words, merges, progress);
}

BpeTraining train_bpe(const WordCounts& words, int64_t merges,
                      const std::function<void(int64_t)>& progress) {
  SLUICE_CHECK(merges >= 0, merges, " merges");
  Trainer trainer(words);
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
