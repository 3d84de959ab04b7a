// kernels/comm/rank_environment.cpp -- environment variables, and /sys for what cores there are.
#include "kernels/comm/rank_environment.h"

#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <tuple>

#include "kernels/base/check.h"

namespace sluice {
namespace {

bool is_set(const char* name) {
  const char* v = std::getenv(name);
  return v && *v;
}

int number(const char* name) {
  const char* v = std::getenv(name);
  SLUICE_CHECK(v, name, " is not set, but others that belong to it are");
  int n = -1;
  const auto [end, error] = std::from_chars(v, v + std::strlen(v), n);
  SLUICE_CHECK(error == std::errc() && *end == 0 && n >= 0, name, " is '", v,
               "', expected a number of at least 0");
  return n;
}

RankEnvironment tcp_environment() {
  const bool torchrun = is_set("RANK");
  RankEnvironment e = {
      .launcher = RankEnvironment::Launcher::tcp,
      .rank = number(torchrun ? "RANK" : "SLURM_PROCID"),
      .size = number(torchrun ? "WORLD_SIZE" : "SLURM_NTASKS"),
      .local_rank = number(torchrun ? "LOCAL_RANK" : "SLURM_LOCALID"),
      .local_size = torchrun                          ? number("LOCAL_WORLD_SIZE")
                    : is_set("SLURM_NTASKS_PER_NODE") ? number("SLURM_NTASKS_PER_NODE")
                                                      : 1,
      .master_addr = std::getenv("MASTER_ADDR"),
      .master_port = number("MASTER_PORT"),
  };
  SLUICE_CHECK(e.rank < e.size && e.local_rank < std::max(e.local_size, e.local_rank + 1), "rank ",
               e.rank, " of ", e.size);
  return e;
}

int topology(int cpu, const char* file) {
  std::ifstream in(cat("/sys/devices/system/cpu/cpu", cpu, "/topology/", file));
  int id = 0;
  in >> id;
  return id;
}

}  // namespace

RankEnvironment rank_environment() {
  RankEnvironment alone;
  if (is_set("OMPI_COMM_WORLD_SIZE") || is_set("PMIX_RANK") || is_set("PMI_SIZE")) {
    alone.launcher = RankEnvironment::Launcher::mpi;
    return alone;
  }
  if (is_set("MASTER_ADDR") && (is_set("RANK") || is_set("SLURM_PROCID"))) return tcp_environment();
  SLUICE_CHECK(!is_set("WORLD_SIZE") || number("WORLD_SIZE") == 1, "WORLD_SIZE is ",
               number("WORLD_SIZE"), ", but MASTER_ADDR is not set");
  return alone;
}

int bind_cores(int local_rank, int local_size) {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  SLUICE_CHECK(sched_getaffinity(0, sizeof allowed, &allowed) == 0, std::strerror(errno));
  std::vector<std::tuple<int, int, int>> cores;  // package, core, hyperthread
  for (int c = 0; c < CPU_SETSIZE; ++c)
    if (CPU_ISSET(c, &allowed))
      cores.emplace_back(topology(c, "physical_package_id"), topology(c, "core_id"), c);
  std::sort(cores.begin(), cores.end());
  const auto n = int64_t(cores.size());
  if (local_size == 1) return int(n);
  // More ranks than cores share them.
  const int64_t begin = n * local_rank / local_size;
  const int64_t end = std::max(begin + 1, n * (local_rank + 1) / local_size);
  cpu_set_t mine;
  CPU_ZERO(&mine);
  for (int64_t i = begin; i < end; ++i) CPU_SET(size_t(std::get<2>(cores[size_t(i)])), &mine);
  SLUICE_CHECK(sched_setaffinity(0, sizeof mine, &mine) == 0, std::strerror(errno));
  return int(end - begin);
}

}  // namespace sluice
