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
#include <deque>
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

class Jobs {
 public:
  Jobs(const SweepPlan& plan, int at_once, const RunChild& child)
      : plan_(plan),
        child_(child),
        cores_(int(std::max(1u, std::thread::hardware_concurrency()))),
        at_once_(at_once > 0 ? at_once : cores_),
        display_(plan) {}

  JobsEnd run() {
    const StopSignals signals;
    for (const SweepRun& run : plan_.runs) look_at(run);
    double shown = 0, told = 0;
    while (!running_.empty() || (!waiting_.empty() && end_.signal == 0)) {
      while (end_.signal == 0 && !waiting_.empty() && int(running_.size()) < at_once_) start();
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
  struct Running {
    pid_t pid;
    const SweepRun* run;
  };

  void look_at(const SweepRun& run) {
    const RunStatus s = read_status(plan_.run_dir(run));
    if (s.state == RunStatus::State::done) return display_.ended(run, "done before");
    if (s.state == RunStatus::State::stopped) return failed(run, "not finite: " + s.why);
    waiting_.push_back(&run);
  }

  void failed(const SweepRun& run, const std::string& why) {
    end_.failed.push_back({run.name, why});
    display_.ended(run, "FAILED: " + why);
  }

  // The cores are shared among those that run from now on: the last ones get more.
  void start() {
    const SweepRun& run = *waiting_.front();
    waiting_.pop_front();
    const std::string dir = plan_.run_dir(run);
    wait_for_lock(dir);
    const int sharing = std::min(at_once_, int(running_.size() + waiting_.size()) + 1);
    std::fflush(nullptr);  // or both would print it
    const pid_t parent = getpid(), pid = fork();
    SLUICE_CHECK(pid >= 0, "fork: ", std::strerror(errno));
    if (pid == 0) become(dir, parent, std::max(1, cores_ / sharing), child_);
    running_.push_back({pid, &run});
  }

  // A child of an earlier sweep may still be saving.
  void wait_for_lock(const std::string& dir) {
    for (int tries = 0;; ++tries) {
      try {
        const RunLock free(dir);
        return;
      } catch (const Error&) {
        if (tries == 600) throw;
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
      }
    }
  }

  void reap() {
    for (size_t i = running_.size(); i-- > 0;) {
      int status = 0;
      if (waitpid(running_[i].pid, &status, WNOHANG) == 0) continue;
      const SweepRun& run = *running_[i].run;
      running_.erase(running_.begin() + int64_t(i));
      const int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
      if (code == 0)
        display_.ended(run, "done");
      else if (end_.signal != 0 && code == int(ExitCode::requeue))
        display_.ended(run, "saved");
      else
        failed(run, reason(status, plan_.run_dir(run)));
    }
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
  std::deque<const SweepRun*> waiting_;
  std::vector<Running> running_;
  JobsEnd end_;
};

}  // namespace

JobsEnd run_jobs(const SweepPlan& plan, int at_once, const RunChild& child) {
  return Jobs(plan, at_once, child).run();
}

}  // namespace sluice
