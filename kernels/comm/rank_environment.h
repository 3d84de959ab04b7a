// kernels/comm/rank_environment.h -- what the launcher told this process, and its share of the
// node.
#pragma once

#include <string>
#include <vector>

namespace sluice {

struct RankEnvironment {
  // none: a process by itself. mpi: mpirun, or srun with PMIx or PMI. tcp: ranks that know each
  // other by MASTER_ADDR and MASTER_PORT (torchrun, srun).
  enum class Launcher { none, mpi, tcp };

  Launcher launcher = Launcher::none;
  int rank = 0, size = 1;              // none of mpi's are known before MPI_Init
  int local_rank = 0, local_size = 1;  // on this node; likewise
  std::string master_addr;             // tcp
  int master_port = 0;
};

// Of OMPI_COMM_WORLD_SIZE, PMIX_RANK or PMI_SIZE; else, where MASTER_ADDR is set, of RANK and
// WORLD_SIZE, or SLURM_PROCID and SLURM_NTASKS. An Error if one that belongs to it is missing.
RankEnvironment rank_environment();

// Binds this process, and threads that it starts from now on, to its part of the cores that it may
// use: cores of one package lie together, hyperthreads of a core too. Returns how many.
int bind_cores(int local_rank, int local_size);

}  // namespace sluice
