// kernels/comm/mpi_none.cpp -- in place of mpi_comm.cpp where CMake found no MPI.
#include "kernels/comm/mpi_comm.h"

namespace sluice {

const char* mpi_version() {
  return "none (CMake found no MPI when this was built)";
}

std::unique_ptr<Comm> mpi_world() {
  SLUICE_CHECK(false, "this build has no MPI: CMake found none (launch/setup.sh installs openmpi)");
  return nullptr;
}

void mpi_local_rank(int&, int&) {}

}  // namespace sluice
