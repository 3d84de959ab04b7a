// trainer/eval/progress_bar.h -- how far an evaluation is, on a terminal's standard error.
#pragma once

#include <cstdint>
#include <string>

namespace sluice {

// Nothing where standard error is no terminal. The line is gone when the bar is.
class ProgressBar {
 public:
  explicit ProgressBar(std::string what);
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  void operator()(int64_t done, int64_t total);

 private:
  std::string what_;
  bool terminal_;
  double started_;
};

}  // namespace sluice
