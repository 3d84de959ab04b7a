// trainer/eval/accuracy.h -- right ones of a number of answers.
#pragma once

#include <cmath>
#include <cstdint>

namespace sluice {

struct Accuracy {
  int64_t right = 0, total = 0;
  void add(bool was_right) {
    right += was_right;
    ++total;
  }
  double value() const { return total > 0 ? double(right) / double(total) : 0; }
  // Of the mean: sqrt(p (1 - p) / (n - 1)).
  double standard_error() const {
    return total > 1 ? std::sqrt(value() * (1 - value()) / double(total - 1)) : 0;
  }
};

}  // namespace sluice
