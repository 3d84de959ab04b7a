// model/autograd/op_times.h -- where a step's time goes, by op.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "kernels/device/stopwatch.h"

namespace sluice {

// A tape that is given one (Tape::time_into) adds to it. An op counts from the end of what ran
// before it, so that the sum is the whole pass. Nobody waits for an op: where ops only queue work,
// its end is noted in the queue. The forward of a recomputed block counts as forward both times;
// what a selective block makes again, in the backward that asked for it.
class OpTimes {
 public:
  struct Row {
    double forward_seconds = 0, backward_seconds = 0;
    int64_t calls = 0;  // of forward
  };
  explicit OpTimes(const Context& ctx) : watch_(ctx) {}

  void start() { mark("", false); }  // what ran since the last op is nobody's
  void forward_done(const std::string& op) { mark(op, false); }
  void backward_done(const std::string& op) { mark(op, true); }

  // Of all so far; waits for it.
  const std::map<std::string, Row>& rows() {
    const std::vector<double> at = watch_.take();
    for (size_t i = 1; i < at.size(); ++i) {
      const auto& [op, backward] = ends_[i];
      if (op.empty()) continue;
      Row& row = rows_[op];
      (backward ? row.backward_seconds : row.forward_seconds) += at[i] - at[i - 1];
      row.calls += !backward;
    }
    ends_.clear();
    return rows_;
  }

 private:
  void mark(const std::string& op, bool backward) {
    ends_.emplace_back(op, backward);
    watch_.mark();
  }

  Stopwatch watch_;
  std::vector<std::pair<std::string, bool>> ends_;  // of each mark: op, backward
  std::map<std::string, Row> rows_;
};

}  // namespace sluice
