// kernels/comm/world.cpp -- which back end a launcher and a device mean.
#include "kernels/comm/world.h"

#include "kernels/comm/mpi_comm.h"
#include "kernels/comm/nccl_comm.h"
#include "kernels/comm/tcp.h"
#include "kernels/device/stream.h"

namespace sluice {
namespace {

constexpr double kConnectSeconds = 300;  // until the last rank has started

// Rank 0 listens, the others come; everybody gets rank 0's bytes. At the port after MASTER_PORT,
// since a launcher may have a store of its own there.
void broadcast_over_tcp(const RankEnvironment& e, const Tensor& bytes) {
  const auto size = size_t(bytes.bytes());
  const int port = e.master_port + 1;
  if (e.rank > 0) {
    Socket root = connect_to(e.master_addr, port, kConnectSeconds);
    root.receive_exactly(bytes.data, size);
    return;
  }
  Listener listener(port);
  for (int p = 1; p < e.size; ++p) listener.accept(kConnectSeconds).send_all(bytes.data, size);
}

void take_gpu(int local_rank, int local_size, bool shared) {
  const int gpus = gpu_count();
  SLUICE_CHECK(gpus > 0, "run.device is cuda, but this rank sees no GPU");
  SLUICE_CHECK(shared || local_size <= gpus, local_size, " ranks on this node and ", gpus,
               " GPUs, expected a GPU a rank (or parallel.staged, by which ranks share one)");
  use_gpu(local_rank % gpus);
}

}  // namespace

World::World(const RankEnvironment& given, const WorldOptions& options) {
  using Launcher = RankEnvironment::Launcher;
  RankEnvironment e = given;
  if (e.launcher == Launcher::none) {
    comm_ = std::make_unique<NullComm>();
    text_ = "1 rank";
    return;
  }
  const bool nccl = options.device == Device::cuda && !options.staged;
  SLUICE_CHECK(nccl || e.launcher == Launcher::mpi,
               "RANK and WORLD_SIZE without MPI: ranks can only reach each other by NCCL, and this "
               "run has ",
               options.staged ? "parallel.staged" : "run.device: cpu", " (start it with mpirun)");
  if (e.launcher == Launcher::mpi) {
    comm_ = mpi_world();
    e.rank = comm_->rank();
    e.size = comm_->size();
    mpi_local_rank(e.local_rank, e.local_size);
  }
  const int cores = bind_cores(e.local_rank, e.local_size);
  text_ = cat(e.size, " ranks, ", e.local_size, " on this node with ", cores, " cores each");
  if (options.device == Device::cuda) take_gpu(e.local_rank, e.local_size, options.staged);
  if (!nccl) {
    text_ += cat(", ", mpi_version());
    return;
  }
  bootstrap_ = std::move(comm_);
  const auto broadcast = [&](const Tensor& bytes) {
    if (bootstrap_)
      bootstrap_->broadcast(bytes, 0, {.what = "id of NCCL"});
    else
      broadcast_over_tcp(e, bytes);
  };
  comm_ = nccl_world({e.rank, e.size, broadcast, options.determinism});
  text_ += cat(", NCCL ", nccl_version());
}

World::~World() = default;

}  // namespace sluice
