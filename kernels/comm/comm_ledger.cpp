// kernels/comm/comm_ledger.cpp -- counting under a mutex.
#include "kernels/comm/comm_ledger.h"

namespace sluice {

const char* name(CommOp op) {
  switch (op) {
    case CommOp::barrier: return "barrier";
    case CommOp::all_gather: return "all_gather";
    case CommOp::reduce_scatter: return "reduce_scatter";
    case CommOp::all_reduce_sum: return "all_reduce_sum";
    case CommOp::all_reduce_max: return "all_reduce_max";
    case CommOp::broadcast: return "broadcast";
    case CommOp::all_to_all_v: return "all_to_all_v";
    case CommOp::split: return "split";
  }
  return "?";
}

CommCount total(const CommCounts& counts) {
  CommCount sum;
  for (const auto& [key, c] : counts) {
    sum.calls += c.calls;
    sum.bytes += c.bytes;
  }
  return sum;
}

void CommLedger::add(const std::string& group, CommOp op, std::string_view what, int64_t bytes) {
  const std::lock_guard lock(mutex_);
  CommCount& c = counts_[{group, op, std::string(what)}];
  ++c.calls;
  c.bytes += bytes;
}

CommCounts CommLedger::counts() const {
  const std::lock_guard lock(mutex_);
  return counts_;
}

void CommLedger::clear() {
  const std::lock_guard lock(mutex_);
  counts_.clear();
}

}  // namespace sluice
