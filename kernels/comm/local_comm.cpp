// kernels/comm/local_comm.cpp -- collectives through shared memory: meet, work, meet.
//
// In the first meeting all ranks post their tensors and compare their calls; then every rank reads
// its peers' memory and writes what it alone owns; the second meeting lets the tensors go. Nothing
// between the two can throw, so no rank unwinds while a peer still reads its tensors.
#include "kernels/comm/local_comm.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "kernels/comm/local_world.h"
#include "kernels/comm/rank_order.h"

namespace sluice {
namespace {

void* at(const Tensor& t, int64_t element) {
  return static_cast<char*>(t.data) + element * size_of(t.dtype);
}

RankReduce reduce_of(CommOp op) {
  return op == CommOp::all_reduce_max ? RankReduce::max : RankReduce::sum;
}

// Rank r reduces the r-th part and writes it into every rank's tensor: no scratch, and no element
// that two ranks touch.
void all_reduce(const std::vector<CommCall>& calls, int rank) {
  const CommCall& mine = calls[size_t(rank)];
  const int64_t n = mine.in.numel(), N = int64_t(calls.size());
  const int64_t begin = n * rank / N, end = n * (rank + 1) / N;
  std::vector<void*> parts;
  for (const CommCall& call : calls) parts.push_back(at(call.in, begin));
  const std::vector<const void*> in(parts.begin(), parts.end());
  reduce_ranks(reduce_of(mine.op), mine.in.dtype, in, parts, end - begin);
}

void reduce_scatter(const std::vector<CommCall>& calls, int rank) {
  const CommCall& mine = calls[size_t(rank)];
  const int64_t n = mine.out.numel();
  std::vector<const void*> parts;
  for (const CommCall& call : calls) parts.push_back(at(call.in, rank * n));
  void* const out[] = {mine.out.data};
  reduce_ranks(RankReduce::sum, mine.in.dtype, parts, out, n);
}

// What `rank` has to do; calls[p] is the call of rank p.
void work(const std::vector<CommCall>& calls, int rank) {
  const CommCall& mine = calls[size_t(rank)];
  switch (mine.op) {
    case CommOp::barrier:
    case CommOp::split: return;
    case CommOp::broadcast:
      return copy_elements(calls[size_t(mine.root)].in, 0, mine.out, 0, mine.out.numel());
    case CommOp::all_gather:
      for (size_t p = 0; p < calls.size(); ++p)
        copy_elements(calls[p].in, 0, mine.out, int64_t(p) * mine.in.numel(), mine.in.numel());
      return;
    case CommOp::all_to_all_v:
      for (size_t p = 0; p < calls.size(); ++p)
        copy_elements(calls[p].in, calls[p].send.begin(rank), mine.out, mine.recv.begin(int(p)),
                      mine.recv.counts[p]);
      return;
    case CommOp::reduce_scatter: return reduce_scatter(calls, rank);
    case CommOp::all_reduce_sum:
    case CommOp::all_reduce_max: return all_reduce(calls, rank);
  }
}

// The injected time of a call.
void delay(const LocalLink& link, const CommCall& call, int64_t bytes) {
  if (call.op == CommOp::split) return;
  double seconds = link.latency_seconds;
  if (link.bytes_per_second > 0) seconds += double(bytes) / link.bytes_per_second;
  if (seconds > 0) std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

class LocalComm final : public Comm {
 public:
  LocalComm(LocalGroup::World& world, std::shared_ptr<LocalMembers> group, int rank,
            std::string name, std::shared_ptr<CommLedger> ledger)
      : Comm(std::move(name), std::move(ledger), group->size()),
        world_(world),
        group_(std::move(group)),
        rank_(rank) {}

  int rank() const override { return rank_; }
  int size() const override { return group_->size(); }
  void abort(const std::string& why) override {
    world_.abort(cat("released, because rank ", group_->ranks[size_t(rank_)], " gave up: ", why));
  }

 private:
  void execute(const CommCall& call) override {
    world_.post(*group_, rank_, call);
    world_.meet(*group_, rank_);
    work(group_->calls, rank_);
    delay(world_.link, call, bytes_sent(call, rank_, size()));
    world_.meet(*group_, rank_);
  }

  std::unique_ptr<Comm> execute_split(const CommCall& call) override {
    world_.post(*group_, rank_, call);
    world_.meet(*group_, rank_);
    const auto part = world_.part(*group_, splits_++, call.color);
    world_.meet(*group_, rank_);
    const int me = group_->ranks[size_t(rank_)];
    const auto rank = std::find(part->ranks.begin(), part->ranks.end(), me) - part->ranks.begin();
    return std::make_unique<LocalComm>(world_, part, int(rank), std::string(call.use.what),
                                       shared_ledger());
  }

  LocalGroup::World& world_;
  const std::shared_ptr<LocalMembers> group_;
  const int rank_;
  int64_t splits_ = 0;
};

}  // namespace

LocalGroup::LocalGroup(int size, LocalLink link) {
  SLUICE_CHECK(size >= 1, "a group of ", size, " ranks");
  world_ = std::make_unique<World>(size, link);
}

LocalGroup::~LocalGroup() = default;

int LocalGroup::size() const {
  return world_->size;
}

void LocalGroup::run(const std::function<void(Comm&)>& body) {
  World& world = *world_;
  const std::shared_ptr<LocalMembers> all = world.reset();
  {
    std::vector<std::jthread> threads;
    const auto start = [&](int rank) {
      threads.emplace_back([&world, &all, &body, rank] {
        try {
          LocalComm comm(world, all, rank, "world", std::make_shared<CommLedger>());
          body(comm);
          world.leave(rank);
        } catch (...) {
          world.record(rank, std::current_exception());
        }
      });
    };
    try {
      for (int rank = 0; rank < size(); ++rank) start(rank);
    } catch (...) {  // no more threads: those that run must not wait for the others
      world.record(int(threads.size()), std::current_exception());
    }
  }
  if (world.first) std::rethrow_exception(world.first);
}

}  // namespace sluice
