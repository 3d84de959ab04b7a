// kernels/comm/local_world.h -- where ranks that are threads meet.
#pragma once

#include <condition_variable>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include "kernels/comm/local_comm.h"

namespace sluice {

// Ranks that make the same collectives.
struct LocalMembers {
  explicit LocalMembers(std::vector<int> world_ranks);

  const std::vector<int> ranks;  // [N] in the world
  std::vector<CommCall> calls;   // [N], of the meeting that is under way
  std::vector<char> waits;       // [N], 1: the rank has arrived at it
  int arrived = 0;
  int64_t meetings = 0;  // complete ones

  int size() const { return int(ranks.size()); }
};

// All groups of one LocalGroup, under one mutex.
struct LocalGroup::World {
  World(int size, LocalLink link);

  const int size;
  const LocalLink link;

  // Of all ranks, as it was at first.
  std::shared_ptr<LocalMembers> reset();
  // Before the first meeting of a collective; not before the second, where peers still read calls.
  void post(LocalMembers& group, int rank, const CommCall& call);
  // Returns when all ranks of the group have arrived, with equal calls; throws if that will never
  // be.
  void meet(LocalMembers& group, int rank);
  // The group that the ranks of `color` make of `parent` in its split number `meeting`.
  std::shared_ptr<LocalMembers> part(const LocalMembers& parent, int64_t meeting, int color);
  // Rank (of the world) has returned, or failed; or nobody shall wait any longer.
  void leave(int rank);
  void record(int rank, const std::exception_ptr& e);
  void abort(const std::string& why);

  std::exception_ptr first;  // of all the exceptions that left a body

 private:
  void set_failure(const std::string& why);
  void check_gone(const LocalMembers& group);

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<char> gone_;  // [size], 1: the rank's body has returned
  std::string failure_;     // why no further meeting can be complete
  std::map<std::tuple<const LocalMembers*, int64_t, int>, std::shared_ptr<LocalMembers>> parts_;
  std::vector<std::shared_ptr<LocalMembers>> groups_;
};

}  // namespace sluice
