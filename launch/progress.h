// launch/progress.h -- how far a long command is: a bar on terminals, elsewhere a line now and
// then.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace sluice::launch {

// On standard error, so that results can be piped.
class Progress {
 public:
  explicit Progress(std::string what);
  ~Progress();  // ends the bar's line
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // `done` of `all`, in any unit; all = 0: not known. `bytes` (0: none) gives the rate in MB/s.
  void show(int64_t done, int64_t all, int64_t bytes = 0);

 private:
  using Clock = std::chrono::steady_clock;
  std::string line(int64_t done, int64_t all, int64_t bytes, double seconds) const;

  std::string what_;
  bool terminal_, drawn_ = false;
  Clock::time_point began_ = Clock::now(), shown_ = began_;
  int64_t first_done_ = -1, first_bytes_ = 0;  // of the first call: what an earlier run has done
};

}  // namespace sluice::launch
