// launch/progress.cpp -- rates and what is left, since the first call.
#include "launch/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace sluice::launch {

Progress::Progress(std::string what)
    : what_(std::move(what)), terminal_(isatty(STDERR_FILENO) == 1) {}

Progress::~Progress() {
  if (drawn_) std::fputc('\n', stderr);
}

std::string Progress::line(int64_t done, int64_t all, int64_t bytes, double seconds) const {
  std::string text = what_;
  if (all > 0) {
    const double share = std::min(1.0, double(done) / double(all));
    constexpr int kWidth = 24;
    const auto full = size_t(share * kWidth);
    if (terminal_)
      text += fmt::format(" [{}{}]", std::string(full, '='), std::string(kWidth - full, ' '));
    text += fmt::format(" {:3.0f}%", 100 * share);
  }
  if (bytes > 0) {
    text += fmt::format("  {:.1f} MB", double(bytes) / 1e6);
    if (seconds > 0)
      text += fmt::format("  {:.1f} MB/s", double(bytes - first_bytes_) / 1e6 / seconds);
  }
  if (all > 0 && done < all && done > first_done_ && seconds > 0) {
    const auto left = int64_t(double(all - done) * seconds / double(done - first_done_));
    text += left < 3600
                ? fmt::format("  {}:{:02d} left", left / 60, left % 60)
                : fmt::format("  {}:{:02d}:{:02d} left", left / 3600, left / 60 % 60, left % 60);
  }
  return text;
}

void Progress::show(int64_t done, int64_t all, int64_t bytes) {
  const auto now = Clock::now();
  if (first_done_ < 0) {
    first_done_ = done;
    first_bytes_ = bytes;
    began_ = shown_ = now;
    return;
  }
  const double since = std::chrono::duration<double>(now - shown_).count();
  if (since < (terminal_ ? 0.2 : 10.0) && !(drawn_ && done == all)) return;
  shown_ = now;
  const std::string text =
      line(done, all, bytes, std::chrono::duration<double>(now - began_).count());
  fmt::print(stderr, "{}{}{}", terminal_ ? "\r" : "", text, terminal_ ? "\x1b[K" : "\n");
  std::fflush(stderr);
  drawn_ = terminal_;
}

}  // namespace sluice::launch
