// model/autograd/op_times.h -- where a step's time goes, by op.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>

namespace sluice {

// A tape that is given one (Tape::time_into) adds to it. Forward of an op counts from the end of
// what ran before it, so that the sum is the whole pass; the forward of a recomputed block counts
// as forward both times.
class OpTimes {
 public:
  struct Row {
    double forward_seconds = 0, backward_seconds = 0;
    int64_t calls = 0;  // of forward
  };
  // `wait` returns when the work queued so far is done, where ops only queue it.
  explicit OpTimes(std::function<void()> wait = {}) : wait_(std::move(wait)) {}

  const std::map<std::string, Row>& rows() const { return rows_; }

  void start() { last_ = Clock::now(); }
  void forward_done(const std::string& op) {
    Row& row = rows_[op];
    row.forward_seconds += lap();
    ++row.calls;
  }
  void backward_done(const std::string& op) { rows_[op].backward_seconds += lap(); }

 private:
  using Clock = std::chrono::steady_clock;
  double lap() {
    if (wait_) wait_();
    const Clock::time_point now = Clock::now();
    const double seconds = std::chrono::duration<double>(now - last_).count();
    last_ = now;
    return seconds;
  }

  std::function<void()> wait_;
  Clock::time_point last_ = Clock::now();
  std::map<std::string, Row> rows_;
};

}  // namespace sluice
