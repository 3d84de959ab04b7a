// kernels/comm/comm.cpp -- the contract of the collectives, checked once for every back end.
#include "kernels/comm/comm.h"

#include <cstring>

namespace sluice {
namespace {

void check_host(const Tensor& t, const char* op, const char* label) {
  SLUICE_CHECK(t && t.device == Device::cpu && t.dense(), op, ": ", label, " is ", to_string(t),
               ", expected a dense tensor on cpu");
}

void check_summable(const Tensor& t, const char* op) {
  SLUICE_CHECK(t.dtype == DType::f32 || t.dtype == DType::f64 || t.dtype == DType::i32 ||
                   t.dtype == DType::i64,
               op, ": sums of ", name(t.dtype), ", expected f32, f64, i32 or i64");
}

// `part` must be apart from `all`, or be exactly its block number `rank`: peers read the one while
// this rank writes the other.
void check_parts(const Tensor& part, const Tensor& all, int rank, int size, const char* op) {
  check_host(part, op, "local");
  check_host(all, op, "all");
  SLUICE_CHECK(part.dtype == all.dtype && part.numel() * size == all.numel(), op, ": local is ",
               to_string(part), ", all is ", to_string(all), ", expected ", size, " times local");
  const auto p = reinterpret_cast<uintptr_t>(part.data), a = reinterpret_cast<uintptr_t>(all.data);
  const auto part_bytes = uintptr_t(part.bytes()), all_bytes = uintptr_t(all.bytes());
  const bool apart = p + part_bytes <= a || a + all_bytes <= p;
  SLUICE_CHECK(apart || p == a + uintptr_t(rank) * part_bytes, op, ": local overlaps all at byte ",
               int64_t(p - a), ", allowed is byte ", uintptr_t(rank) * part_bytes, " of rank ",
               rank);
}

}  // namespace

const char* name(CommOp op) {
  switch (op) {
    case CommOp::barrier: return "barrier";
    case CommOp::all_gather: return "all_gather";
    case CommOp::reduce_scatter: return "reduce_scatter";
    case CommOp::all_reduce_sum: return "all_reduce_sum";
    case CommOp::broadcast: return "broadcast";
  }
  return "?";
}

std::string to_string(const CommCall& call) {
  std::string text = name(call.op);
  if (call.in) text += " of " + to_string(call.in);
  if (call.op == CommOp::broadcast) text += cat(" from rank ", call.root);
  return text;
}

void Comm::barrier() {
  execute({.op = CommOp::barrier});
}

void Comm::all_gather(const Tensor& local, const Tensor& all) {
  check_parts(local, all, rank(), size(), "all_gather");
  execute({.op = CommOp::all_gather, .in = local, .out = all});
}

void Comm::reduce_scatter(const Tensor& all, const Tensor& local) {
  check_parts(local, all, rank(), size(), "reduce_scatter");
  check_summable(all, "reduce_scatter");
  execute({.op = CommOp::reduce_scatter, .in = all, .out = local});
}

void Comm::all_reduce_sum(const Tensor& t) {
  check_host(t, "all_reduce_sum", "t");
  check_summable(t, "all_reduce_sum");
  execute({.op = CommOp::all_reduce_sum, .in = t, .out = t});
}

void Comm::broadcast(const Tensor& t, int root) {
  check_host(t, "broadcast", "t");
  SLUICE_CHECK(root >= 0 && root < size(), "broadcast from rank ", root, " of ", size());
  execute({.op = CommOp::broadcast, .in = t, .out = t, .root = root});
}

void NullComm::execute(const CommCall& call) {
  if (call.in.data != call.out.data && call.in.bytes() > 0)
    std::memcpy(call.out.data, call.in.data, size_t(call.in.bytes()));
}

}  // namespace sluice
