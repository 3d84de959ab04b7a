// trainer/loop/signals.h -- SIGTERM, SIGUSR1 and SIGINT ask a run to finish its step, save and end.
#pragma once

#include <csignal>
#include <string>

namespace sluice {

// While one exists, the three only set a flag, the process's. A second SIGINT has its default
// effect: the process ends at once, and what is being saved is dropped (a checkpoint is published
// by a rename). More SIGTERMs and SIGUSR1s change nothing: schedulers send several, and the save
// must not be lost.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  int received() const;  // the first one; 0: none
};

std::string signal_name(int signal);

}  // namespace sluice
