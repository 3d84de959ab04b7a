// kernels/comm/comm.cpp -- the contract of the collectives, checked once for every back end.
#include "kernels/comm/comm.h"

#include <numeric>

#include "kernels/base/profile_range.h"
#include "kernels/base/trace.h"
#include "kernels/comm/comm_staging.h"
#include "kernels/comm/rank_order.h"

namespace sluice {
namespace {

void check_place(const Tensor& t, const char* op, const char* label) {
  SLUICE_CHECK(t && t.dense(), op, ": ", label, " is ", to_string(t), ", expected a dense tensor");
}

void check_number(const Tensor& t, const char* op) {
  SLUICE_CHECK(t.dtype == DType::f32 || t.dtype == DType::f64 || t.dtype == DType::i32 ||
                   t.dtype == DType::i64,
               op, " of ", name(t.dtype), ", expected f32, f64, i32 or i64");
}

uintptr_t address(const Tensor& t) {
  return reinterpret_cast<uintptr_t>(t.data);
}

bool apart(const Tensor& a, const Tensor& b) {
  return address(a) + uintptr_t(a.bytes()) <= address(b) ||
         address(b) + uintptr_t(b.bytes()) <= address(a);
}

// `part` must be apart from `all`, or be exactly its block number `rank`: peers read the one while
// this rank writes the other.
void check_blocks(const Tensor& part, const Tensor& all, int rank, int size, const char* op) {
  check_place(part, op, "local");
  check_place(all, op, "all");
  SLUICE_CHECK(
      part.dtype == all.dtype && part.device == all.device && part.numel() * size == all.numel(),
      op, ": local is ", to_string(part), ", all is ", to_string(all), ", expected ", size,
      " times local");
  SLUICE_CHECK(
      apart(part, all) || address(part) == address(all) + uintptr_t(rank) * uintptr_t(part.bytes()),
      op, ": local overlaps all at byte ", int64_t(address(part) - address(all)),
      ", allowed is byte ", rank * part.bytes(), " of rank ", rank);
}

void check_parts(const Tensor& t, const CommParts& parts, int size, const char* label) {
  check_place(t, "all_to_all_v", label);
  const auto N = size_t(size);
  SLUICE_CHECK(parts.counts.size() == N && (parts.begins.empty() || parts.begins.size() == N),
               "all_to_all_v: ", label, " has ", parts.counts.size(), " counts and ",
               parts.begins.size(), " begins, expected ", N);
  for (int p = 0; p < size; ++p) {
    const int64_t count = parts.counts[size_t(p)], begin = parts.begin(p);
    SLUICE_CHECK(count >= 0 && begin >= 0 && begin + count <= t.numel(), "all_to_all_v: part ", p,
                 " of ", label, " is ", count, " elements from ", begin, " on, the tensor is ",
                 to_string(t));
  }
}

}  // namespace

int64_t CommParts::begin(int rank) const {
  return begins.empty() ? std::accumulate(counts.begin(), counts.begin() + rank, int64_t(0))
                        : begins[size_t(rank)];
}

std::string to_string(const CommCall& call) {
  std::string text = name(call.op);
  if (!call.use.what.empty()) text += cat(" '", call.use.what, "'");
  if (call.in) text += " of " + to_string(call.in);
  if (call.op == CommOp::broadcast) text += cat(" from rank ", call.root);
  return text;
}

int64_t bytes_sent(const CommCall& call, int rank, int64_t N) {
  const int64_t size = call.in ? size_of(call.in.dtype) : 0, n = call.in ? call.in.numel() : 0;
  switch (call.op) {
    case CommOp::barrier:
    case CommOp::split: return 0;
    case CommOp::all_gather: return (N - 1) * n * size;
    case CommOp::reduce_scatter: return (n - n / N) * size;
    case CommOp::all_reduce_sum:
    case CommOp::all_reduce_max: {
      const int64_t mine = n * (rank + 1) / N - n * rank / N;
      return (n - mine + (N - 1) * mine) * size;
    }
    case CommOp::broadcast: return rank == call.root ? (N - 1) * n * size : 0;
    case CommOp::all_to_all_v: {
      const auto& c = call.send.counts;
      return (std::accumulate(c.begin(), c.end(), int64_t(0)) - c[size_t(rank)]) * size;
    }
  }
  return 0;
}

void Comm::run(const CommCall& call) {
  const ProfileRange range(sluice::name(call.op));
  const TraceScope scope(Trace::on() ? cat(sluice::name(call.op), " ", call.use.what) : "",
                         TraceRow::collectives);
  const CommLedger::Entry entry(*ledger_, *this, call);
  place_and_execute(call);
}

void Comm::place_and_execute(const CommCall& call) {
  if (!call.in || call.in.device == place()) return execute(call);
  if (!staging_) staging_ = std::make_unique<CommStaging>(place());
  staging_->run(call, [this](const CommCall& staged) { execute(staged); });
}

Comm::Comm(std::string name, std::shared_ptr<CommLedger> ledger, int size)
    : name_(std::move(name)), ledger_(std::move(ledger)), world_ranks_(static_cast<size_t>(size)) {
  std::iota(world_ranks_.begin(), world_ranks_.end(), 0);
}

Comm::~Comm() = default;

void Comm::barrier(const CommUse& use) {
  run({.op = CommOp::barrier, .use = use});
}

void Comm::all_gather(const Tensor& local, const Tensor& all, const CommUse& use) {
  check_blocks(local, all, rank(), size(), "all_gather");
  run({.op = CommOp::all_gather, .in = local, .out = all, .use = use});
}

void Comm::reduce_scatter(const Tensor& all, const Tensor& local, const CommUse& use) {
  check_blocks(local, all, rank(), size(), "reduce_scatter");
  check_number(all, "reduce_scatter");
  run({.op = CommOp::reduce_scatter, .in = all, .out = local, .use = use});
}

void Comm::all_reduce_sum(const Tensor& t, const CommUse& use) {
  check_place(t, "all_reduce_sum", "t");
  check_number(t, "all_reduce_sum");
  run({.op = CommOp::all_reduce_sum, .in = t, .out = t, .use = use});
}

void Comm::all_reduce_max(const Tensor& t, const CommUse& use) {
  check_place(t, "all_reduce_max", "t");
  check_number(t, "all_reduce_max");
  run({.op = CommOp::all_reduce_max, .in = t, .out = t, .use = use});
}

void Comm::broadcast(const Tensor& t, int root, const CommUse& use) {
  check_place(t, "broadcast", "t");
  SLUICE_CHECK(root >= 0 && root < size(), "broadcast from rank ", root, " of ", size());
  run({.op = CommOp::broadcast, .in = t, .out = t, .root = root, .use = use});
}

void Comm::all_to_all_v(const Tensor& send, const CommParts& send_parts, const Tensor& recv,
                        const CommParts& recv_parts, const CommUse& use) {
  check_parts(send, send_parts, size(), "send");
  check_parts(recv, recv_parts, size(), "recv");
  SLUICE_CHECK(send.dtype == recv.dtype && send.device == recv.device && apart(send, recv),
               "all_to_all_v: send is ", to_string(send), ", recv is ", to_string(recv),
               ", expected one dtype, one device and no overlap");
  run({.op = CommOp::all_to_all_v,
       .in = send,
       .out = recv,
       .send = send_parts,
       .recv = recv_parts,
       .use = use});
}

std::unique_ptr<Comm> Comm::split(int color, int key, const CommUse& use) {
  const CommCall call = {.op = CommOp::split, .color = color, .key = key, .use = use};
  SLUICE_CHECK(color >= 0, "split with color ", color);
  const CommLedger::Entry entry(*ledger_, *this, call);
  std::unique_ptr<Comm> part = execute_split(call);
  std::vector<int32_t> ranks(static_cast<size_t>(part->size()));
  int32_t mine = world_ranks_[size_t(rank())];
  part->place_and_execute(
      {.op = CommOp::all_gather,
       .in = make_tensor(&mine, DType::i32, Device::cpu, {1}),
       .out = make_tensor(ranks.data(), DType::i32, Device::cpu, {part->size()}),
       .use = {.what = "ranks of a group"}});
  part->world_ranks_.assign(ranks.begin(), ranks.end());
  return part;
}

void NullComm::execute(const CommCall& call) {
  if (call.op == CommOp::all_to_all_v) {
    SLUICE_CHECK(call.send.counts[0] == call.recv.counts[0], to_string(call), ": sends ",
                 call.send.counts[0], " elements to itself, receives ", call.recv.counts[0]);
    copy_elements(call.in, call.send.begin(0), call.out, call.recv.begin(0), call.send.counts[0]);
  } else {
    copy_elements(call.in, 0, call.out, 0, call.in ? call.in.numel() : 0);
  }
}

std::unique_ptr<Comm> NullComm::execute_split(const CommCall& call) {
  return std::unique_ptr<Comm>(new NullComm(std::string(call.use.what), shared_ledger()));
}

}  // namespace sluice
