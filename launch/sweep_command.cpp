// launch/sweep_command.cpp -- sweep: its runs are this program's `train`.
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "launch/commands.h"
#include "trainer/sweep/sweep.h"

namespace sluice::launch {

int sweep(const Sweep& c) {
  const std::string program = std::filesystem::read_symlink("/proc/self/exe");
  const auto train = [&](const std::string& config, int threads) {
    const std::string set = "run.threads=" + std::to_string(threads);
    execl(program.c_str(), program.c_str(), "train", config.c_str(), "--set", set.c_str(), nullptr);
    std::fprintf(stderr, "%s: %s\n", program.c_str(), std::strerror(errno));
  };
  return int(run_sweep(
      {.file = c.sweep.file, .set = c.sweep.set, .plan_only = c.plan, .program = program}, train));
}

}  // namespace sluice::launch
