// kernels/comm/world.h -- the ranks that were started together with this process, if it was started
// with others.
#pragma once

#include <memory>
#include <string>

#include "kernels/comm/comm.h"
#include "kernels/comm/rank_environment.h"
#include "kernels/tensor/context.h"

namespace sluice {

struct WorldOptions {
  Device device = Device::cpu;                    // of what the run computes with
  Determinism determinism = Determinism::strict;  // NCCL's sums
  // Device tensors go through the host and MPI: for ranks that share a GPU, which NCCL refuses.
  bool staged = false;
};

// All ranks: MPI for tensors of the host, NCCL for those of a GPU (which then takes the host's
// too). Takes this rank's share of the machine first: its cores, and its GPU (the current one from
// now on). A process that was started alone gets a group of one.
class World {
 public:
  World(const RankEnvironment& environment, const WorldOptions& options);
  ~World();

  Comm& comm() { return *comm_; }
  // "8 ranks, NCCL 2.28.9 (strict), GPU 0-7": one line for the log
  const std::string& text() const { return text_; }

 private:
  std::unique_ptr<Comm> bootstrap_;  // MPI, where comm_ is NCCL
  std::unique_ptr<Comm> comm_;
  std::string text_;
};

}  // namespace sluice
