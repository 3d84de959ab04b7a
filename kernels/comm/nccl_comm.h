// kernels/comm/nccl_comm.h -- ranks with a GPU each; device tensors, on the stream that a call
// names.
#pragma once

#include <functional>
#include <memory>

#include "kernels/comm/comm.h"
#include "kernels/tensor/context.h"

namespace sluice {

const char* nccl_version();  // of the library that is loaded, or why there is none

// Sums that many bytes at a time, on a buffer of its own (allocated by the first sum).
constexpr int64_t kNcclScratchBytes = int64_t(64) << 20;

struct NcclWorld {
  int rank = 0, size = 1;
  // Rank 0's bytes, on all ranks: how NCCL's unique id gets around.
  std::function<void(const Tensor& bytes)> broadcast;
  // strict: rank-ordered sums, the bits of the other back ends. fast: NCCL's own.
  Determinism determinism = Determinism::strict;
};

// The current device is this rank's. An Error if the build has no NCCL.
std::unique_ptr<Comm> nccl_world(const NcclWorld& world);

}  // namespace sluice
