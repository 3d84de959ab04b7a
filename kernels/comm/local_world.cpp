// kernels/comm/local_world.cpp -- meetings: all ranks post their calls and compare them.
#include "kernels/comm/local_world.h"

#include <algorithm>

namespace sluice {
namespace {

bool same(const CommCall& a, const CommCall& b) {
  if (a.op != b.op || a.root != b.root || a.use.what != b.use.what || bool(a.in) != bool(b.in))
    return false;
  if (!a.in) return true;
  return a.in.dtype == b.in.dtype && (a.op == CommOp::all_to_all_v || a.in.numel() == b.in.numel());
}

// Why the calls of a group do not fit together; nothing if they do.
std::string disagreement(const LocalMembers& g) {
  const auto call = [&](int r) -> const CommCall& { return g.calls[size_t(r)]; };
  for (int r = 1; r < g.size(); ++r)
    if (!same(call(0), call(r)))
      return cat("ranks disagree: rank ", g.ranks[0], " calls ", to_string(call(0)), ", rank ",
                 g.ranks[size_t(r)], " calls ", to_string(call(r)));
  if (call(0).op != CommOp::all_to_all_v) return "";
  for (int p = 0; p < g.size(); ++p)
    for (int q = 0; q < g.size(); ++q) {
      const int64_t sent = call(p).send.counts[size_t(q)], got = call(q).recv.counts[size_t(p)];
      if (sent != got)
        return cat("ranks disagree: ", to_string(call(p)), ": rank ", g.ranks[size_t(p)], " sends ",
                   sent, " elements to rank ", g.ranks[size_t(q)], ", which receives ", got);
    }
  return "";
}

std::string what_of(const std::exception_ptr& e) {
  try {
    std::rethrow_exception(e);
  } catch (const std::exception& x) {
    return x.what();
  } catch (...) {
    return "an exception that is no std::exception";
  }
}

}  // namespace

LocalMembers::LocalMembers(std::vector<int> world_ranks)
    : ranks(std::move(world_ranks)), calls(ranks.size()), waits(ranks.size()) {}

LocalGroup::World::World(int size, LocalLink link) : size(size), link(link) {}

std::shared_ptr<LocalMembers> LocalGroup::World::reset() {
  gone_.assign(size_t(size), 0);
  failure_.clear();
  first = nullptr;
  parts_.clear();
  std::vector<int> all(static_cast<size_t>(size));
  for (int r = 0; r < size; ++r) all[size_t(r)] = r;
  groups_ = {std::make_shared<LocalMembers>(all)};
  return groups_[0];
}

void LocalGroup::World::post(LocalMembers& group, int rank, const CommCall& call) {
  const std::lock_guard lock(mutex_);
  group.calls[size_t(rank)] = call;
}

void LocalGroup::World::meet(LocalMembers& group, int rank) {
  std::unique_lock lock(mutex_);
  const int64_t meeting = group.meetings;
  if (failure_.empty()) {
    group.waits[size_t(rank)] = 1;
    ++group.arrived;
    check_gone(group);
  }
  if (failure_.empty() && group.arrived == group.size()) {
    if (const std::string why = disagreement(group); !why.empty()) {
      set_failure(why);
    } else {
      group.arrived = 0;
      std::fill(group.waits.begin(), group.waits.end(), char(0));
      ++group.meetings;
      changed_.notify_all();
    }
  }
  changed_.wait(lock, [&] { return group.meetings != meeting || !failure_.empty(); });
  // A meeting that was complete stays so, even if a peer has failed since.
  if (group.meetings == meeting)
    fail(__FILE__, __LINE__, "collective",
         cat("rank ", group.ranks[size_t(rank)], ", ", to_string(group.calls[size_t(rank)]), ": ",
             failure_));
}

std::shared_ptr<LocalMembers> LocalGroup::World::part(const LocalMembers& parent, int64_t meeting,
                                                      int color) {
  const std::lock_guard lock(mutex_);
  std::shared_ptr<LocalMembers>& part = parts_[{&parent, meeting, color}];
  if (part) return part;
  std::vector<std::pair<int, int>> order;  // key, rank of the parent
  for (int r = 0; r < parent.size(); ++r)
    if (const CommCall& call = parent.calls[size_t(r)]; call.color == color)
      order.push_back({call.key, r});
  std::sort(order.begin(), order.end());
  std::vector<int> ranks;
  for (const auto& [key, r] : order) ranks.push_back(parent.ranks[size_t(r)]);
  part = std::make_shared<LocalMembers>(ranks);
  groups_.push_back(part);
  return part;
}

void LocalGroup::World::leave(int rank) {
  const std::lock_guard lock(mutex_);
  gone_[size_t(rank)] = 1;
  for (const auto& group : groups_) check_gone(*group);
}

void LocalGroup::World::record(int rank, const std::exception_ptr& e) {
  const std::lock_guard lock(mutex_);
  if (!first) first = e;
  set_failure(cat("released, because rank ", rank, " failed: ", what_of(e)));
}

void LocalGroup::World::abort(const std::string& why) {
  const std::lock_guard lock(mutex_);
  set_failure(why);
}

void LocalGroup::World::set_failure(const std::string& why) {
  if (failure_.empty()) failure_ = why;
  changed_.notify_all();
}

void LocalGroup::World::check_gone(const LocalMembers& g) {
  if (g.arrived == 0) return;
  const auto waiting = size_t(std::find(g.waits.begin(), g.waits.end(), char(1)) - g.waits.begin());
  for (const int r : g.ranks)
    if (gone_[size_t(r)])
      return set_failure(cat("rank ", r, " returned while rank ", g.ranks[waiting], " waits in ",
                             to_string(g.calls[waiting])));
}

}  // namespace sluice
