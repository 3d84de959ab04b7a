// trainer/eval/progress_bar.cpp -- one line, redrawn.
#include "trainer/eval/progress_bar.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <utility>

#include "trainer/loop/measure.h"
#include "trainer/metrics/progress.h"

namespace sluice {

ProgressBar::ProgressBar(std::string what)
    : what_(std::move(what)),
      terminal_(isatty(STDERR_FILENO) == 1),
      started_(monotonic_seconds()) {}

ProgressBar::~ProgressBar() {
  if (terminal_) std::fputs("\r\x1b[2K", stderr);
}

void ProgressBar::operator()(int64_t done, int64_t total) {
  if (!terminal_ || done <= 0) return;
  constexpr int64_t kWidth = 30;
  const int64_t full = kWidth * done / total;
  const double left = (monotonic_seconds() - started_) * double(total - done) / double(done);
  std::fputs(fmt::format("\r\x1b[2K{} [{:#<{}}{:.<{}}] {} of {}  ETA {}", what_, "", full, "",
                         kWidth - full, done, total, duration(left))
                 .c_str(),
             stderr);
  std::fflush(stderr);
}

}  // namespace sluice
