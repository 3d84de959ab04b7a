// kernels/comm/watchdog_server.cpp -- a loop over poll().
#include "kernels/comm/watchdog_server.h"

#include <poll.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <thread>

#include "kernels/base/check.h"

namespace sluice {
namespace {

double seconds_since(std::chrono::steady_clock::time_point t) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - t).count();
}

}  // namespace

double watchdog_period(double timeout_seconds) {
  return std::clamp(timeout_seconds / 20, 0.02, 0.5);
}

WatchdogServer::WatchdogServer(int size, double timeout_seconds, int exit_code, std::string token)
    : timeout_(timeout_seconds),
      exit_code_(exit_code),
      token_(std::move(token)),
      ranks_(static_cast<size_t>(size)),
      heard_(ranks_.size(), Clock::now()),
      finished_(ranks_.size()),
      gone_(ranks_.size()) {
  rlimit files = {};  // a connection a rank
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
}

void WatchdogServer::run() {
  auto looked = Clock::now();
  while (!all_done()) {
    wait();
    const double since = seconds_since(looked);
    if (since < watchdog_period(timeout_)) continue;
    looked = Clock::now();
    if (since > timeout_)
      end(cat("rank 0 (", ranks_[0].where, ") was stopped for ", int(since), " s"), exit_code_);
    ping();
    refresh();
    const std::string why = problem(ranks_, timeout_);
    if (!why.empty() && told_others_wait()) end(why, exit_code_);
  }
}

// For something to read, or the period.
void WatchdogServer::wait() {
  std::vector<pollfd> fds = {{listener_.fd(), POLLIN, 0}};
  for (const Peer& p : peers_) fds.push_back({p.socket.fd(), POLLIN, 0});
  if (::poll(fds.data(), fds.size(), int(watchdog_period(timeout_) * 1e3)) <= 0) return;
  for (size_t i = 0; i < peers_.size(); ++i)
    if (fds[i + 1].revents) hear(peers_[i]);
  std::erase_if(peers_, [](const Peer& p) { return !p.socket; });
  if (fds[0].revents) peers_.emplace_back().socket = listener_.accept(0);
}

void WatchdogServer::hear(Peer& peer) {
  const bool open = peer.socket.receive_some(peer.in);
  for (size_t end; (end = peer.in.find('\n')) != std::string::npos;) {
    const std::string line = peer.in.substr(0, end);
    peer.in.erase(0, end + 1);
    take(peer, line);
  }
  if (open) return;
  peer.socket.close();
  if (peer.rank < 0 || ranks_[size_t(peer.rank)].finished >= 0) return;
  ranks_[size_t(peer.rank)].gone = 0;
  gone_[size_t(peer.rank)] = Clock::now();
}

void WatchdogServer::take(Peer& peer, const std::string& line) {
  const char kind = line.empty() ? '?' : line[0];
  std::istringstream rest(line.substr(std::min<size_t>(2, line.size())));
  if (kind == 'H') {
    std::string token;
    int rank = -1;
    rest >> token >> rank >> std::ws;
    if (token != token_ || rank < 0 || size_t(rank) >= ranks_.size()) return peer.socket.close();
    peer.rank = rank;
    std::getline(rest, ranks_[size_t(rank)].where);
  }
  if (peer.rank < 0) return peer.socket.close();  // a stranger
  const auto r = size_t(peer.rank);
  heard_[r] = Clock::now();
  if (kind == 'S') ranks_[r].calls = decode(rest.str());
  if (kind == 'B') {
    ranks_[r].finished = 0;
    finished_[r] = Clock::now();
  }
  if (kind == 'E') {
    int code = exit_code_;
    std::string why;
    rest >> code >> std::ws;
    std::getline(rest, why);
    std::replace(why.begin(), why.end(), kNewLine, '\n');
    refresh();
    end(cat("rank ", r, " (", ranks_[r].where, ") failed: ", why), code);
  }
}

void WatchdogServer::ping() {
  for (Peer& p : peers_) {
    if (p.out.empty()) p.out = "P\n";
    p.socket.send_some(p.out);
  }
}

bool WatchdogServer::all_done() const {
  return std::all_of(ranks_.begin(), ranks_.end(), [](const auto& r) { return r.finished >= 0; });
}

// A rank is lost in an instant; it takes another for the rest to come to where it is missing, and
// to say so.
bool WatchdogServer::told_others_wait() const {
  double lost = -1;
  for (const WatchedRank& r : ranks_) lost = std::max(lost, r.gone);
  return lost < 0 || lost > std::min(0.3, 3 * watchdog_period(timeout_));
}

void WatchdogServer::refresh() {
  for (size_t r = 0; r < ranks_.size(); ++r) {
    ranks_[r].silent = seconds_since(heard_[r]);
    if (ranks_[r].finished >= 0) ranks_[r].finished = seconds_since(finished_[r]);
    if (ranks_[r].gone >= 0) ranks_[r].gone = seconds_since(gone_[r]);
  }
}

void WatchdogServer::end(const std::string& problem, int exit_code) {
  std::fprintf(stderr, "sluice: %s", report(problem, ranks_).c_str());
  std::fflush(stderr);
  for (Peer& p : peers_) {
    p.out += cat("X ", exit_code, "\n");
    p.socket.send_some(p.out);
  }
  // Others end first, so that nobody takes this rank's end for the reason.
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  std::_Exit(exit_code);
}

}  // namespace sluice
