// data/loader/mixture.h -- which source gives each row of a run.
//
// After any number k of rows each source has given its share w_i k to within one row, w_i its
// weight over their sum: Tijdeman, 1980, "The chairman assignment problem" (the bound is
// 1 - 1 / (2n - 2) for n sources). Among the sources that are 1 / (2n - 2) rows behind or more once
// the next row is due, the one comes that would be too far behind soonest. Weights are rounded to
// 2^-40 of their sum, and the rest is integers: the order is the same on every machine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace sluice {

class Mixture {
 public:
  explicit Mixture(const std::vector<double>& weights);

  struct Place {
    size_t source;
    int64_t nth;  // of the rows that this source gives
  };
  // Going forward is cheap, going back counts from zero: nothing is to be saved.
  Place place(int64_t row);
  const std::vector<int64_t>& given(int64_t rows);  // by source, of the first `rows` rows

 private:
  size_t next() const;  // the source of row next_
  void seek(int64_t row);

  std::vector<int64_t> weights_, given_,
      behind_;         // behind: next_ w_i - given_i, in 1 / total_ rows
  int64_t total_ = 0;  // of the weights
  int64_t next_ = 0;
};

}  // namespace sluice
