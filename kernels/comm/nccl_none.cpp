// kernels/comm/nccl_none.cpp -- in place of nccl_comm.cpp in a build without CUDA or NCCL.
#include "kernels/comm/nccl_comm.h"

namespace sluice {

const char* nccl_version() {
  return "none (CMake found no CUDA or no NCCL when this was built)";
}

std::unique_ptr<Comm> nccl_world(const NcclWorld&) {
  SLUICE_CHECK(false, "this build has no NCCL: CMake found no CUDA, or neither nccl.h nor libnccl");
  return nullptr;
}

}  // namespace sluice
