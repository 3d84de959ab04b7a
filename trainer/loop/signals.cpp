// trainer/loop/signals.cpp -- a handler may do no more than set a flag.
#include "trainer/loop/signals.h"

#include "kernels/base/check.h"

namespace sluice {

namespace {

constexpr int kSignals[] = {SIGTERM, SIGUSR1, SIGINT};
volatile std::sig_atomic_t g_received = 0;  // a handler can reach nothing else

void handle(int signal) {
  if (g_received == 0) g_received = signal;
}

}  // namespace

StopSignals::StopSignals() {
  g_received = 0;
  for (size_t i = 0; i < 3; ++i) {
    struct sigaction action {};
    action.sa_handler = handle;
    action.sa_flags = SA_RESTART | (kSignals[i] == SIGINT ? int(SA_RESETHAND) : 0);
    sigemptyset(&action.sa_mask);
    SLUICE_CHECK(sigaction(kSignals[i], &action, &before_[i]) == 0, signal_name(kSignals[i]));
  }
}

StopSignals::~StopSignals() {
  for (size_t i = 0; i < 3; ++i) sigaction(kSignals[i], &before_[i], nullptr);
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
