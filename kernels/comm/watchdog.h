// kernels/comm/watchdog.h -- ends all ranks of a run if one of them is lost, stuck or broken, and
// says which and where.
//
// A star of TCP connections to rank 0, of a thread a rank, beside whatever the collectives use:
// each rank tells its last collectives many times within the timeout, and rank 0 answers. A rank
// that closes its connection, is silent for longer than the timeout, or waits in a collective for
// longer, ends the run: rank 0 prints the report (watchdog_report.h), and every process ends at
// once with the exit code. If rank 0 is the one, each other rank says so and ends.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "kernels/comm/comm.h"

namespace sluice {

class Watchdog {
 public:
  // All ranks of `world` make one, at the same point. `exit_code` is that of a run that the
  // watchdog ends.
  Watchdog(Comm& world, double timeout_seconds, int exit_code);
  // Says that this rank is done. On rank 0 it waits until all are.
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  // This rank cannot go on: all ranks end with this exit code, this process too.
  [[noreturn]] void fail(const std::string& why, int exit_code);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace sluice
