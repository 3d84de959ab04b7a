// trainer/sweep/jobs.cpp -- fork, wait, report.
#include "trainer/sweep/jobs.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>

#include "trainer/checkpoint/run_lock.h"
#include "trainer/loop/exit_code.h"
#include "trainer/loop/measure.h"
#include "trainer/loop/signals.h"
#include "trainer/sweep/jobs_display.h"
#include "trainer/sweep/run_files.h"

namespace sluice {

namespace {

// Both ends of a child's life are here. The parent's death is a SIGTERM to it; a terminal's ^C is
// not for it (it would count as the second one), so it has a process group of its own.
[[noreturn]] void become(const std::string& dir, pid_t parent, int threads, const RunChild& child) {
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  setpgid(0, 0);
  const int log = open(log_file(dir).c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  const int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (log < 0 || null < 0 || dup2(null, 0) < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0) _exit(1);
  if (getppid() != parent) _exit(int(ExitCode::requeue));  // it died before prctl
  child(config_file(dir), threads);
  _exit(int(ExitCode::error));
}

std::string reason(int status, const std::string& dir) {
  if (WIFSIGNALED(status)) return cat("killed by ", signal_name(WTERMSIG(status)));
  const int code = WEXITSTATUS(status);
  if (code == int(ExitCode::nonfinite)) return "not finite: " + read_status(dir).why;
  return cat("exit code ", code, ": ", last_line(log_file(dir)));
}

constexpr double kLockSeconds = 60;  // a run whose folder is locked for longer has failed

class Jobs {
 public:
  Jobs(const SweepPlan& plan, int at_once, const RunChild& child)
      : plan_(plan),
        child_(child),
        cores_(int(std::max(1u, std::thread::hardware_concurrency()))),
        at_once_(std::min(at_once > 0 ? at_once : cores_, std::max(1, int(plan.runs.size())))),
        display_(plan) {}

  JobsEnd run() {
    const StopSignals signals;
    signal(SIGCHLD, SIG_DFL);  // a caller that ignores it leaves no exit code to wait for
    for (const SweepRun& run : plan_.runs) look_at(run);
    double shown = 0, told = 0;
    while (!running_.empty() || (!waiting_.empty() && end_.signal == 0)) {
      if (end_.signal == 0) start_waiting();
      reap();
      if (end_.signal == 0) end_.signal = signals.received();
      const double now = monotonic_seconds();
      if (end_.signal != 0 && now - told > 2) {
        for (const Running& r : running_) kill(r.pid, SIGTERM);
        told = now;
      }
      if (now - shown > 0.5) {
        display_.update(running());
        shown = now;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    return std::move(end_);
  }

 private:
  struct Waiting {
    const SweepRun* run;
    double locked_since = 0;  // seconds; 0: it was not
  };
  struct Running {
    pid_t pid;
    const SweepRun* run;
  };

  void look_at(const SweepRun& run) {
    const RunStatus s = read_status(plan_.run_dir(run));
    if (s.state == RunStatus::State::done) return display_.ended(run, "done before");
    if (s.state == RunStatus::State::stopped) return failed(run, "not finite: " + s.why);
    waiting_.push_back({&run});
  }

  void failed(const SweepRun& run, const std::string& why) {
    end_.failed.push_back({run.name, why});
    display_.ended(run, "FAILED: " + why);
  }

  // As many as there is room for, in order. One whose folder is locked waits for another turn: a
  // child of an earlier sweep may still be saving.
  void start_waiting() {
    for (size_t i = 0; i < waiting_.size() && int(running_.size()) < at_once_;) {
      Waiting& w = waiting_[i];
      const SweepRun& run = *w.run;
      if (const std::string lock = locked(run); lock.empty()) {
        start(run);
      } else {
        const double now = monotonic_seconds();
        if (w.locked_since == 0) w.locked_since = now;
        if (now - w.locked_since < kLockSeconds) {
          ++i;
          continue;
        }
        failed(run, lock);
      }
      waiting_.erase(waiting_.begin() + int64_t(i));
    }
  }

  // All runs of a sweep have the same number of threads, or their tokens/s would say nothing.
  void start(const SweepRun& run) {
    std::fflush(nullptr);  // or both would print it
    const pid_t parent = getpid(), pid = fork();
    SLUICE_CHECK(pid >= 0, "fork: ", std::strerror(errno));
    if (pid == 0) become(plan_.run_dir(run), parent, std::max(1, cores_ / at_once_), child_);
    running_.push_back({pid, &run});
  }

  std::string locked(const SweepRun& run) const {
    try {
      const RunLock free(plan_.run_dir(run));
      return "";
    } catch (const Error& e) {
      return e.what();
    }
  }

  void reap() {
    for (size_t i = running_.size(); i-- > 0;) {
      int status = 0;
      const pid_t pid = waitpid(running_[i].pid, &status, WNOHANG);
      if (pid == 0) continue;
      const SweepRun& run = *running_[i].run;
      SLUICE_CHECK(pid > 0, "waitpid: ", run.name, ": ", std::strerror(errno));
      running_.erase(running_.begin() + int64_t(i));
      reaped(run, status);
    }
  }

  void reaped(const SweepRun& run, int status) {
    const std::string dir = plan_.run_dir(run);
    const int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    if (code == 0 && read_status(dir).state == RunStatus::State::done)
      display_.ended(run, "done");
    else if (code == 0)
      failed(run, "exit code 0, but metrics.jsonl does not say that it is done");
    else if (end_.signal != 0 && code == int(ExitCode::requeue))
      display_.ended(run, "saved");
    else if (end_.signal != 0 && WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM)
      display_.ended(run, "stopped before its first step");  // it had no handler yet
    else
      failed(run, reason(status, dir));
  }

  std::vector<const SweepRun*> running() const {
    std::vector<const SweepRun*> list;
    for (const Running& r : running_) list.push_back(r.run);
    return list;
  }

  const SweepPlan& plan_;
  const RunChild& child_;
  const int cores_, at_once_;
  JobsDisplay display_;
  std::vector<Waiting> waiting_;
  std::vector<Running> running_;
  JobsEnd end_;
};

}  // namespace

JobsEnd run_jobs(const SweepPlan& plan, int at_once, const RunChild& child) {
  return Jobs(plan, at_once, child).run();
}

}  // namespace sluice
