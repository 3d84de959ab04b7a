// tests/ranks/fault.cpp -- ranks that make collectives until one of them is lost, stops or fails.
//   ranks_fault KIND RANK TIMEOUT_S FOLDER      KIND: none kill stop hang error
// Each writes FOLDER/<process id>, so that the test can see that all are gone.
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <thread>

#include <unistd.h>

#include "kernels/comm/watchdog.h"
#include "kernels/comm/world.h"

namespace sluice {
namespace {

constexpr int kExitCode = 6;

void fault(const std::string& kind) {
  if (kind == "kill") raise(SIGKILL);
  if (kind == "stop") raise(SIGSTOP);
  if (kind == "hang") std::this_thread::sleep_for(std::chrono::hours(1));
  if (kind == "error") throw Error("the disk is full");
}

void steps(Comm& comm, const std::string& kind, int rank) {
  const auto pair = comm.split(comm.rank() / 2, comm.rank(), {.what = "pair"});
  std::vector<float> x(1000, 1.0f);
  const Tensor t = make_tensor(x.data(), DType::f32, Device::cpu, {1000});
  for (int step = 0; step < 20; ++step) {
    pair->all_reduce_sum(t, {.what = "layer"});
    if (step == 10 && comm.rank() == rank) fault(kind);
    comm.all_reduce_max(t, {.what = "norm"});
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

int run(const std::string& kind, int rank, double timeout, const std::string& folder) {
  std::ofstream(folder + "/" + std::to_string(getpid())) << "\n";
  // As a trainer, which saves before it ends: mpirun sends this as soon as one rank is lost.
  std::signal(SIGTERM, [](int) {});
  World world(rank_environment(), {});
  Watchdog watchdog(world.comm(), timeout, kExitCode);
  try {
    steps(world.comm(), kind, rank);
  } catch (const Error& e) {
    watchdog.fail(e.what(), kExitCode);
  }
  if (world.comm().rank() == 0) std::cout << world.text() << ": all steps done\n";
  return 0;
}

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  return sluice::run(argv[1], std::atoi(argv[2]), std::atof(argv[3]), argv[4]);
}
