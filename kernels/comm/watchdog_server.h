// kernels/comm/watchdog_server.h -- rank 0's part of the watchdog.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "kernels/comm/tcp.h"
#include "kernels/comm/watchdog_report.h"

namespace sluice {

// Lines between a rank and rank 0; what follows the letter is the rest of the line.
//   to rank 0:   H token rank where | S calls (encode) | E exit_code why | B (done)
//   from rank 0: P (it is alive)    | X exit_code (end)
constexpr char kNewLine = '\x1d';  // within a line
// How often: many times within the timeout.
double watchdog_period(double timeout_seconds);

class WatchdogServer {
 public:
  WatchdogServer(int size, double timeout_seconds, int exit_code, std::string token);

  int port() const { return listener_.port(); }
  // Until all ranks are done; ends the process if one never will be.
  void run();

 private:
  using Clock = std::chrono::steady_clock;
  struct Peer {
    Socket socket;
    std::string in, out;
    int rank = -1;  // until it has said who it is
  };

  void wait();
  void hear(Peer& peer);
  void take(Peer& peer, const std::string& line);
  void ping();
  bool all_done() const;
  void refresh();
  bool told_others_wait() const;
  [[noreturn]] void end(const std::string& problem, int exit_code);

  const double timeout_;
  const int exit_code_;
  const std::string token_;
  Listener listener_{0};
  std::vector<Peer> peers_;
  std::vector<WatchedRank> ranks_;
  std::vector<Clock::time_point> heard_, finished_, gone_;  // [N]
};

}  // namespace sluice
