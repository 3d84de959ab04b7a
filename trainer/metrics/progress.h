// trainer/metrics/progress.h -- what a person sees while a run works.
#pragma once

#include <cstdint>
#include <string>

namespace sluice {

struct ProgressLine {
  int64_t step = 0, steps = 0;
  double loss = 0;  // nats a token
  double grad_norm = 0, lr = 0;
  double tokens_per_second = 0;
  double mfu = 0;  // 0..1; below 0: the peak is not known
  double eta_seconds = 0;
};

std::string to_string(const ProgressLine& p);  // one line without a newline

// On a terminal the line is rewritten in place at every step; elsewhere a plain line is printed
// every `every` steps, so that log files stay readable.
class Progress {
 public:
  enum class Voice : uint8_t { loud, silent };  // silent: of ranks that others speak for
  explicit Progress(int64_t every, Voice voice = Voice::loud);
  ~Progress();

  void update(const ProgressLine& p);
  void note(const std::string& text);  // a line of its own, above the progress line

 private:
  int64_t every_;
  bool silent_, terminal_;
  bool open_ = false;  // the terminal's line has no newline yet
};

std::string duration(double seconds);  // "1h02m", "3m05s", "12s"

}  // namespace sluice
