// kernels/comm/comm_ledger.h -- what a rank has sent: calls and bytes by group, op and name.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <tuple>

namespace sluice {

enum class CommOp : uint8_t {
  barrier,
  all_gather,
  reduce_scatter,
  all_reduce_sum,
  all_reduce_max,
  broadcast,
  all_to_all_v,
  split,
};

const char* name(CommOp);

struct CommCount {
  int64_t calls = 0;
  int64_t bytes = 0;  // that this rank gave to other ranks
};
// By group ("world", or what it was split off for), op and name of the call.
using CommCounts = std::map<std::tuple<std::string, CommOp, std::string>, CommCount>;

CommCount total(const CommCounts& counts);

// One a rank, shared by its communicators and their threads.
class CommLedger {
 public:
  void add(const std::string& group, CommOp op, std::string_view what, int64_t bytes);
  CommCounts counts() const;
  void clear();

 private:
  mutable std::mutex mutex_;
  CommCounts counts_;
};

}  // namespace sluice
