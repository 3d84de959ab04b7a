// kernels/device/stopwatch.h -- times at which queued work is done, without waiting for it.
#pragma once

#include <memory>
#include <vector>

#include "kernels/tensor/context.h"

namespace sluice {

class Stopwatch {
 public:
  explicit Stopwatch(const Context& ctx);
  ~Stopwatch();
  // Notes when what was queued so far is done; on the CPU that is now.
  void mark();
  // Seconds of every mark since the first one; waits for them. Starts over with none.
  std::vector<double> take();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace sluice
