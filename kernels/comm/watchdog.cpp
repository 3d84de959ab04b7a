// kernels/comm/watchdog.cpp -- each rank's thread.
#include "kernels/comm/watchdog.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <random>
#include <sstream>
#include <thread>
#include <vector>

#include "kernels/comm/tcp.h"
#include "kernels/comm/watchdog_server.h"

namespace sluice {
namespace {

using Clock = std::chrono::steady_clock;
constexpr double kConnectSeconds = 60;

std::string host_name() {
  char name[256] = {};
  gethostname(name, sizeof name - 1);
  return name;
}

// "token port host address address ...", of rank 0, on all ranks.
std::string share_invitation(Comm& world, const std::string& mine) {
  std::vector<uint8_t> text(1024, 0);
  std::memcpy(text.data(), mine.data(), std::min(mine.size(), text.size() - 1));
  world.broadcast(make_tensor(text.data(), DType::u8, Device::cpu, {int64_t(text.size())}), 0,
                  {.what = "address of the watchdog"});
  return reinterpret_cast<const char*>(text.data());
}

Socket connect_to_any(std::istringstream& addresses, const std::string& host, int port) {
  if (host == host_name()) return connect_to("127.0.0.1", port, kConnectSeconds);
  std::string tried = host;
  for (std::string a; addresses >> a;) {
    tried += " " + a;
    try {
      return connect_to(a, port, 0);
    } catch (const Error&) {  // a network that this rank is not in: the next one
    }
  }
  SLUICE_CHECK(false, "no way to rank 0's watchdog: tried ", tried, ", port ", port);
  return {};
}

}  // namespace

struct Watchdog::State {
  State(Comm& world, double timeout, int exit_code)
      : rank(world.rank()), ledger(world.ledger()), timeout(timeout), exit_code(exit_code) {}

  const int rank;
  const CommLedger& ledger;
  const double timeout;
  const int exit_code;

  std::mutex mutex;  // of what follows
  Socket socket;
  std::string in, out;

  std::atomic<bool> closing{false};
  std::unique_ptr<WatchdogServer> server;  // rank 0
  std::jthread server_thread, thread;

  // What this rank was doing, for a message about rank 0.
  std::string here() const {
    const std::vector<WatchedCall> calls = watched(ledger.recent());
    if (calls.empty()) return "before the first collective";
    const WatchedCall& last = calls.back();
    return cat(last.left ? "after " : "in ", last.text, " (call ", last.number, " of ", last.group,
               ")");
  }

  [[noreturn]] void lost_root(const std::string& how) const {
    std::fprintf(stderr, "sluice: rank %d: rank 0 %s; this rank is %s\n", rank, how.c_str(),
                 here().c_str());
    std::fflush(stderr);
    std::_Exit(exit_code);
  }

  void say(const std::string& line) {
    const std::lock_guard lock(mutex);
    out += line + "\n";
    socket.send_some(out);
  }

  // True if something came.
  bool listen() {
    const std::lock_guard lock(mutex);
    const bool open = socket.receive_some(in);
    bool heard = false;
    for (size_t end; (end = in.find('\n')) != std::string::npos; heard = true) {
      const std::string line = in.substr(0, end);
      in.erase(0, end + 1);
      if (line[0] == 'X') std::_Exit(std::stoi(line.substr(2)));
    }
    if (!open && !closing) lost_root("is gone: its connection closed");
    return heard;
  }

  void beat() {
    const std::string calls = encode(watched(ledger.recent()));
    const std::lock_guard lock(mutex);
    if (out.empty()) out = "S " + calls + "\n";  // else rank 0 does not read
    socket.send_some(out);
  }

  void loop() {
    auto heard = Clock::now();
    while (!closing) {
      pollfd p = {socket.fd(), POLLIN, 0};
      ::poll(&p, 1, int(watchdog_period(timeout) * 1e3));
      if (closing) return;
      beat();
      if (listen()) heard = Clock::now();
      const double silent = std::chrono::duration<double>(Clock::now() - heard).count();
      if (silent > timeout && rank > 0)
        lost_root(cat("is silent for ", int(silent), " s: stopped, or its machine is"));
      std::this_thread::sleep_for(std::chrono::duration<double>(watchdog_period(timeout) / 2));
    }
  }
};

Watchdog::Watchdog(Comm& world, double timeout_seconds, int exit_code)
    : state_(std::make_unique<State>(world, timeout_seconds, exit_code)) {
  State& s = *state_;
  std::string mine;
  if (world.rank() == 0) {
    const std::string token = cat(std::random_device()(), "-", std::random_device()());
    s.server = std::make_unique<WatchdogServer>(world.size(), timeout_seconds, exit_code, token);
    mine = cat(token, " ", s.server->port(), " ", host_name());
    for (const std::string& a : own_addresses()) mine += " " + a;
    s.server_thread = std::jthread([&s] { s.server->run(); });
  }
  std::istringstream invitation(share_invitation(world, mine));
  std::string token, host;
  int port = 0;
  invitation >> token >> port >> host;
  s.socket = connect_to_any(invitation, host, port);
  s.say(cat("H ", token, " ", s.rank, " ", host_name(), ", process ", getpid()));
  s.thread = std::jthread([&s] { s.loop(); });
}

Watchdog::~Watchdog() {
  State& s = *state_;
  s.closing = true;
  s.say("B");
  s.thread.join();
  if (s.server) s.server_thread.join();
}

void Watchdog::fail(const std::string& why, int exit_code) {
  std::string line = why;
  std::replace(line.begin(), line.end(), '\n', kNewLine);
  state_->say("S " + encode(watched(state_->ledger.recent())));
  state_->say(cat("E ", exit_code, " ", line));
  // Rank 0 says it, and ends this process too. If it cannot:
  std::this_thread::sleep_for(std::chrono::seconds(3));
  std::fprintf(stderr, "sluice: rank %d failed: %s\n", state_->rank, why.c_str());
  std::fflush(stderr);
  std::_Exit(exit_code);
}

}  // namespace sluice
