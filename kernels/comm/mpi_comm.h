// kernels/comm/mpi_comm.h -- ranks as processes that mpirun (or srun) started; host tensors.
#pragma once

#include <memory>

#include "kernels/comm/comm.h"

namespace sluice {

// Whether this build has MPI, and if so the library's name and version.
const char* mpi_version();

// All ranks; calls MPI_Init, so once a process. Its end calls MPI_Finalize, unless an exception is
// the reason: then other ranks may never come to it. An Error if the build has no MPI.
std::unique_ptr<Comm> mpi_world();

// Among the ranks of this node, of which MPI knows which they are; after mpi_world().
void mpi_local_rank(int& rank, int& size);

}  // namespace sluice
