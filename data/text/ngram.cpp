// data/text/ngram.cpp -- counts in hash tables, one a context length.
//
// Witten-Bell: p_k(b | c) = (count(c, b) + kinds(c) * p_{k-1}(b | shorter c)) / (count(c) +
// kinds(c)), kinds(c) the number of different bytes seen after c. Source: Witten and Bell, 1991.
#include "data/text/ngram.h"

#include <cmath>
#include <cstdint>
#include <unordered_map>

#include "kernels/base/check.h"

namespace sluice {

namespace {

struct Counts {
  uint32_t total = 0, kinds = 0;
};

// Key of the last k bytes before `at`; the length is the table's.
uint64_t context(const std::string& s, size_t at, int k) {
  uint64_t key = 0;
  for (int i = k; i >= 1; --i) key = key << 8 | uint8_t(s[at - size_t(i)]);
  return key;
}

class Model {
 public:
  explicit Model(int order) : contexts_(size_t(order)), pairs_(size_t(order)) {}

  void count(const std::string& s) {
    for (size_t at = 0; at < s.size(); ++at)
      for (int k = 0; k < int(contexts_.size()) && size_t(k) <= at; ++k) {
        const uint64_t c = context(s, at, k);
        Counts& n = contexts_[size_t(k)][c];
        ++n.total;
        if (pairs_[size_t(k)][c << 8 | uint8_t(s[at])]++ == 0) ++n.kinds;
      }
  }

  double bits(const std::string& s) const {
    double sum = 0;
    for (size_t at = 0; at < s.size(); ++at) {
      double p = 1.0 / 256;
      for (int k = 0; k < int(contexts_.size()) && size_t(k) <= at; ++k) {
        const uint64_t c = context(s, at, k);
        const auto n = contexts_[size_t(k)].find(c);
        if (n == contexts_[size_t(k)].end()) break;
        const auto pair = pairs_[size_t(k)].find(c << 8 | uint8_t(s[at]));
        const double seen = pair == pairs_[size_t(k)].end() ? 0 : pair->second;
        p = (seen + n->second.kinds * p) / double(n->second.total + n->second.kinds);
      }
      sum -= std::log2(p);
    }
    return sum;
  }

 private:
  std::vector<std::unordered_map<uint64_t, Counts>> contexts_;  // by context length
  std::vector<std::unordered_map<uint64_t, uint32_t>> pairs_;   // context and byte
};

}  // namespace

double ngram_bits_per_byte(const std::vector<std::string>& train,
                           const std::vector<std::string>& valid, int order) {
  SLUICE_CHECK(order >= 1 && order <= 5, "order is ", order, ", expected 1 to 5");
  Model model(order);
  for (const std::string& d : train) model.count(d);
  double bits = 0;
  size_t bytes = 0;
  for (const std::string& d : valid) {
    bits += model.bits(d);
    bytes += d.size();
  }
  SLUICE_CHECK(bytes > 0, "no text to score");
  return bits / double(bytes);
}

}  // namespace sluice
