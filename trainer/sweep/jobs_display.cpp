// trainer/sweep/jobs_display.cpp -- the remaining time is by FLOPs: runs are not of one size.
#include "trainer/sweep/jobs_display.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "trainer/loop/measure.h"
#include "trainer/metrics/progress.h"

namespace sluice {

JobsDisplay::JobsDisplay(const SweepPlan& plan)
    : plan_(plan), terminal_(isatty(STDOUT_FILENO) == 1), began_(monotonic_seconds()) {
  for (const SweepRow& row : plan.rows)
    for (const SweepCandidate& c : row.candidates)
      for (const size_t i : c.runs) {
        const SweepRun& run = plan.runs[i];
        const RunStatus s = read_status(plan.run_dir(run));
        widest_ = std::max(widest_, run.name.size());
        flops_per_step_[run.name] =
            row.model.flops_per_token * double(run.config.train.batch_tokens);
        first_step_[run.name] = s.step;
        all_flops_ += flops_per_step(run) * double(run.config.train.steps - s.step);
      }
}

double JobsDisplay::flops_per_step(const SweepRun& run) const {
  return flops_per_step_.at(run.name);
}

void JobsDisplay::ended(const SweepRun& run, const std::string& how) {
  clear();
  const RunStatus s = read_status(plan_.run_dir(run));
  ++ended_;
  ended_flops_ += flops_per_step(run) * double(s.step - first_step_.at(run.name));
  all_flops_ -= flops_per_step(run) * double(run.config.train.steps - s.step);  // not done any more
  fmt::print("{:>3}/{}  {:<{}}  step {}  loss {:.4f}  {}\n", ended_, plan_.runs.size(), run.name,
             widest_, s.step, s.loss, how);
  std::fflush(stdout);
}

std::string JobsDisplay::line(const SweepRun& run, const RunStatus& s) const {
  const TrainSettings& t = run.config.train;
  std::string text = fmt::format("         {:<{}}  step {}/{}", run.name, widest_, s.step, t.steps);
  if (s.tokens_per_second > 0)
    text +=
        fmt::format("  loss {:.4f}  {:.0f} tok/s  ETA {}", s.loss, s.tokens_per_second,
                    duration(double((t.steps - s.step) * t.batch_tokens) / s.tokens_per_second));
  return text;
}

std::string JobsDisplay::total(double done_flops) const {
  std::string text = fmt::format("{:>3}/{}  runs ended", ended_, plan_.runs.size());
  const double elapsed = monotonic_seconds() - began_;
  if (done_flops > 0) text += ", ETA " + duration(elapsed * (all_flops_ - done_flops) / done_flops);
  return text;
}

void JobsDisplay::clear() {
  for (; live_lines_ > 0; --live_lines_) std::fputs("\x1b[1A\x1b[2K", stdout);
}

void JobsDisplay::update(const std::vector<const SweepRun*>& running) {
  const double now = monotonic_seconds();
  if (!terminal_ && now - printed_ < 60) return;
  printed_ = now;
  clear();
  double done = ended_flops_;
  for (const SweepRun* run : running) {
    const RunStatus s = read_status(plan_.run_dir(*run));
    done += flops_per_step(*run) * double(std::max<int64_t>(0, s.step - first_step_.at(run->name)));
    fmt::print("{}\n", line(*run, s));
  }
  fmt::print("{}\n", total(done));
  if (terminal_) live_lines_ = running.size() + 1;
  std::fflush(stdout);
}

}  // namespace sluice
