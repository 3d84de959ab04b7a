// trainer/metrics/progress.cpp -- a terminal's line is redrawn, a file's is not.
#include "trainer/metrics/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

namespace sluice {

std::string duration(double seconds) {
  const auto s = int64_t(seconds + 0.5);
  if (s >= 3600) return fmt::format("{}h{:02}m", s / 3600, s / 60 % 60);
  if (s >= 60) return fmt::format("{}m{:02}s", s / 60, s % 60);
  return fmt::format("{}s", s);
}

std::string to_string(const ProgressLine& p) {
  const int width = int(fmt::formatted_size("{}", p.steps));
  std::string line =
      fmt::format("step {:>{}}/{}  loss {:.4f}  norm {:.3f}  lr {:.2e}  {:.0f} tok/s", p.step,
                  width, p.steps, p.loss, p.grad_norm, p.lr, p.tokens_per_second);
  if (p.mfu >= 0) line += fmt::format("  MFU {:.1f}%", 100 * p.mfu);
  return line + "  ETA " + duration(p.eta_seconds);
}

Progress::Progress(int64_t every, Voice voice)
    : every_(every), silent_(voice == Voice::silent), terminal_(isatty(STDOUT_FILENO) == 1) {}

Progress::~Progress() {
  if (open_) std::fputs("\n", stdout);
}

void Progress::update(const ProgressLine& p) {
  if (silent_) return;
  if (terminal_) {
    std::fputs(("\r\x1b[2K" + to_string(p)).c_str(), stdout);
    open_ = true;
  } else if (p.step % every_ == 0 || p.step == p.steps || p.step == 1) {
    std::fputs((to_string(p) + "\n").c_str(), stdout);
  }
  std::fflush(stdout);
}

void Progress::note(const std::string& text) {
  if (silent_) return;
  if (open_) std::fputs("\r\x1b[2K", stdout);
  open_ = false;
  std::fputs((text + "\n").c_str(), stdout);
  std::fflush(stdout);
}

}  // namespace sluice
