// trainer/loop/signals.cpp -- a handler may do no more than set a flag.
#include "trainer/loop/signals.h"

#include <mutex>

#include "kernels/base/check.h"

namespace sluice {

namespace {

constexpr int kSignals[] = {SIGTERM, SIGUSR1, SIGINT};
volatile std::sig_atomic_t g_received = 0;  // a handler can reach nothing else
std::mutex g_mutex;                         // ranks may be threads of one process:
int g_alive = 0;                            // the first one installs, the last one restores
struct sigaction g_before[3];

void handle(int signal) {
  if (g_received == 0) g_received = signal;
}

}  // namespace

StopSignals::StopSignals() {
  const std::lock_guard lock(g_mutex);
  if (g_alive++ > 0) return;
  g_received = 0;
  for (size_t i = 0; i < 3; ++i) {
    struct sigaction action {};
    action.sa_handler = handle;
    action.sa_flags = SA_RESTART | (kSignals[i] == SIGINT ? int(SA_RESETHAND) : 0);
    sigemptyset(&action.sa_mask);
    SLUICE_CHECK(sigaction(kSignals[i], &action, &g_before[i]) == 0, signal_name(kSignals[i]));
  }
}

StopSignals::~StopSignals() {
  const std::lock_guard lock(g_mutex);
  if (--g_alive > 0) return;
  for (size_t i = 0; i < 3; ++i) sigaction(kSignals[i], &g_before[i], nullptr);
}

int StopSignals::received() const {
  return g_received;
}

std::string signal_name(int signal) {
  switch (signal) {
    case SIGTERM: return "SIGTERM";
    case SIGUSR1: return "SIGUSR1";
    case SIGINT: return "SIGINT";
    default: return cat("signal ", signal);
  }
}

}  // namespace sluice
