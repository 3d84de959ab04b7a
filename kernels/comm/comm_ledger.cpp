// kernels/comm/comm_ledger.cpp -- counting under a mutex.
#include "kernels/comm/comm_ledger.h"

#include <sstream>

#include "kernels/comm/comm.h"

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

std::string to_string(const CommRecord& r) {
  return cat(name(r.op), r.what.empty() ? "" : " '" + r.what + "'", " (call ", r.number, " of ",
             r.group, ")");
}

std::string rank_list(const std::vector<int>& ranks) {
  if (ranks.size() < 2) return ranks.empty() ? "" : cat(ranks[0]);
  const int step = ranks[1] - ranks[0];
  bool even = step > 0;
  for (size_t i = 1; i < ranks.size(); ++i) even = even && ranks[i] - ranks[i - 1] == step;
  if (even && ranks.size() > 2)
    return cat(ranks.front(), "-", ranks.back(), step > 1 ? cat("/", step) : "");
  std::string text;
  for (const int r : ranks) text += cat(text.empty() ? "" : ",", r);
  return text;
}

std::vector<int> ranks_of(const std::string& list) {
  std::vector<int> ranks;
  std::istringstream in(list);
  for (int first = 0; in >> first;) {
    int last = first, step = 1;
    if (in.peek() == '-') {
      in.get();
      in >> last;
      if (in.peek() == '/') {
        in.get();
        in >> step;
      }
    }
    for (int r = first; r <= last; r += step) ranks.push_back(r);
    in.get();  // the comma
  }
  return ranks;
}

CommLedger::Entry::Entry(CommLedger& ledger, const Comm& comm, const CommCall& call)
    : ledger_(ledger) {
  auto record =
      std::make_unique<CommRecord>(CommRecord{.group = comm.name(),
                                              .ranks = rank_list(comm.world_ranks()),
                                              .op = call.op,
                                              .what = std::string(call.use.what),
                                              .entered = std::chrono::steady_clock::now()});
  const std::lock_guard lock(ledger.mutex_);
  record->number = ++ledger.numbers_[{record->group, record->ranks}];
  CommCount& c = ledger.counts_[{record->group, record->op, record->what}];
  ++c.calls;
  c.bytes += bytes_sent(call, comm.rank(), comm.size());
  record_ = record.get();
  auto& recent = ledger.recent_;
  recent.push_back(std::move(record));
  for (auto r = recent.begin(); recent.size() > kRecent && r != recent.end();)
    r = (*r)->left ? recent.erase(r) : std::next(r);
}

CommLedger::Entry::~Entry() {
  const std::lock_guard lock(ledger_.mutex_);
  record_->left = true;
}

std::vector<CommRecord> CommLedger::recent() const {
  const std::lock_guard lock(mutex_);
  std::vector<CommRecord> records;
  for (const auto& r : recent_) records.push_back(*r);
  return records;
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
