// trainer/loop/exit_code.h -- how a run ended, for scripts and schedulers.
#pragma once

#include <string>
#include <utility>

#include "kernels/base/check.h"

namespace sluice {

enum class ExitCode : int {
  done = 0,
  error = 1,          // anything that has no code of its own
  config = 2,         // the command line or the config
  data = 3,           // tokenizer, shards, running out of data
  checkpoint = 4,     // cannot be loaded, saved or continued
  nonfinite = 5,      // train.nonfinite stopped the run; the last good checkpoint stays
  lost = 6,           // a rank died or did not answer; the same command goes on
  requeue = 75,       // SIGTERM or SIGUSR1: saved, the same command goes on (EX_TEMPFAIL)
  interrupted = 130,  // SIGINT: saved; a second SIGINT ends the process at once, unsaved
};

// For `sluice train --help`.
constexpr const char* kExitCodes =
    "Exit codes: 0 done; 1 error; 2 command line or config; 3 data; 4 checkpoint;\n"
    "5 stopped because steps were not finite (train.nonfinite); 6 a rank died or did not answer;\n"
    "75 saved after SIGTERM or SIGUSR1:\n"
    "requeue, the same command goes on; 130 saved after SIGINT (a second one ends it at once).";

struct ExitError : Error {
  ExitError(ExitCode code, const std::string& what) : Error(what), code(code) {}
  ExitCode code;
};

// Runs `f`; an Error that has no exit code yet gets this one.
template <class F>
auto with_code(ExitCode code, F f) {
  try {
    return f();
  } catch (const ExitError&) {
    throw;
  } catch (const Error& e) {
    throw ExitError(code, e.what());
  }
}

}  // namespace sluice
