// kernels/comm/comm_ledger.h -- what a rank has called: calls and bytes by group, op and name, and
// the last calls one by one.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

namespace sluice {

class Comm;
struct CommCall;

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

// A call that is under way or was made lately.
struct CommRecord {
  std::string group;   // its name
  std::string ranks;   // of the world: "0-3", "1-7/2" (every second one), "0,3,4"
  int64_t number = 0;  // of the calls of this group, from 1 on
  CommOp op = CommOp::barrier;
  std::string what;
  std::chrono::steady_clock::time_point entered = {};
  bool left = false;
};

// "all_gather 'layers.3 weights' (call 17 of shard)"
std::string to_string(const CommRecord& record);

// The text of CommRecord::ranks, and what it says.
std::string rank_list(const std::vector<int>& ranks);
std::vector<int> ranks_of(const std::string& list);

// One a rank, shared by its communicators and their threads.
class CommLedger {
 public:
  static constexpr size_t kRecent = 8;  // calls that are kept one by one, at least

  // A call, from its beginning to its end.
  class Entry {
   public:
    Entry(CommLedger& ledger, const Comm& comm, const CommCall& call);
    ~Entry();
    Entry(const Entry&) = delete;
    Entry& operator=(const Entry&) = delete;

   private:
    CommLedger& ledger_;
    CommRecord* record_;
  };

  CommCounts counts() const;
  void clear();  // the counts
  // Those that are under way and the last ones, in the order of their beginning.
  std::vector<CommRecord> recent() const;

 private:
  mutable std::mutex mutex_;
  CommCounts counts_;
  std::map<std::pair<std::string, std::string>, int64_t> numbers_;  // calls by group and ranks
  std::deque<std::unique_ptr<CommRecord>> recent_;
};

}  // namespace sluice
