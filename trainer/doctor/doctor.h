// trainer/doctor/doctor.h -- what may spoil a run, looked for before it starts: `sluice doctor`.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/comm/comm.h"
#include "trainer/loop/config.h"

namespace sluice {

struct Finding {
  enum class State : uint8_t { fine, note, bad };
  State state = State::fine;
  std::string what;    // "free memory"
  std::string found;   // in words, with numbers
  std::string advice;  // what to do; empty if fine
};
using Findings = std::vector<Finding>;

// Of this rank; `ranks_here` share the machine.
Findings examine_host(const Config& config, int ranks_here);
Findings examine_gpus(const Config& config, int ranks_here);
// Free space, and the speed of a file that is written, synced and read back.
Findings examine_folder(const Config& config, int rank);
// Collective: are all the same program, config and libraries, do they see the same run folder, and
// how fast do they talk?
Findings examine_ranks(const Config& config, Comm& world);

struct Diagnosis {
  std::string text;  // a line a finding: all of rank 0's, of the others what is not fine
  bool healthy = true;
};
Diagnosis diagnose(const Config& config, Comm& world);  // collective, the same on all ranks

}  // namespace sluice
