// data/loader/mixture.cpp -- earliest deadline first.
#include "data/loader/mixture.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/base/check.h"

namespace sluice {

Mixture::Mixture(const std::vector<double>& weights)
    : given_(weights.size(), 0), behind_(weights.size(), 0) {
  SLUICE_CHECK(!weights.empty() && weights.size() <= 1024, weights.size(), " sources");
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  for (const double w : weights)
    weights_.push_back(std::max<int64_t>(1, std::llround(std::ldexp(w / sum, 40))));
  total_ = std::accumulate(weights_.begin(), weights_.end(), int64_t(0));
}

// With all in 1 / ((2n - 2) total) rows: source i has until its lag of w_i more a row would pass
// 2n - 3, and there is always one that lags by 1. Products stay below 2^53, so the quotients are
// rounded right, and ties are ties.
size_t Mixture::next() const {
  const auto n = int64_t(weights_.size());
  if (n == 1) return 0;
  size_t best = weights_.size();
  double soonest = 0;
  for (size_t i = 0; i < weights_.size(); ++i) {
    const int64_t lag = (2 * n - 2) * (behind_[i] + weights_[i]);
    if (lag < total_) continue;
    const double left = double((2 * n - 3) * total_ - lag) / double(weights_[i]);
    if (best < weights_.size() && left >= soonest) continue;
    best = i;
    soonest = left;
  }
  SLUICE_CHECK(best < weights_.size(), "no source is behind at row ", next_);
  return best;
}

void Mixture::seek(int64_t row) {
  if (weights_.size() == 1) {
    given_[0] = next_ = row;
    return;
  }
  if (row < next_) {
    std::fill(given_.begin(), given_.end(), 0);
    std::fill(behind_.begin(), behind_.end(), 0);
    next_ = 0;
  }
  for (; next_ < row; ++next_) {
    const size_t source = next();
    for (size_t i = 0; i < weights_.size(); ++i) behind_[i] += weights_[i];
    behind_[source] -= total_;
    ++given_[source];
  }
}

Mixture::Place Mixture::place(int64_t row) {
  seek(row);
  const size_t source = next();
  return {source, given_[source]};
}

const std::vector<int64_t>& Mixture::given(int64_t rows) {
  seek(rows);
  return given_;
}

}  // namespace sluice
