// kernels/comm/watchdog_report.h -- what is wrong with a run's ranks, and the text that says it.
#pragma once

#include <string>
#include <vector>

#include "kernels/comm/comm_ledger.h"

namespace sluice {

// A collective as rank 0 hears of it.
struct WatchedCall {
  std::string group, ranks;  // as in CommRecord
  int64_t number = 0;
  std::string text;    // "all_gather 'layers.3 weights'"
  double seconds = 0;  // since it began
  bool left = false;
};

struct WatchedRank {
  std::string where = "not heard of yet";  // "node17, process 4711"
  std::vector<WatchedCall> calls;          // the last ones, in order
  double silent = 0;                       // seconds since it was last heard of
  double finished = -1;                    // seconds since it said that it is done; -1: it is not
  double gone = -1;                        // seconds since its connection closed before that
};

std::vector<WatchedCall> watched(const std::vector<CommRecord>& records);
std::string encode(const std::vector<WatchedCall>& calls);  // one line
std::vector<WatchedCall> decode(const std::string& line);

// The first thing that makes the run hopeless: a rank that is gone, silent, or waited for, for more
// than `timeout` seconds. Empty: none.
std::string problem(const std::vector<WatchedRank>& ranks, double timeout);

// Who is missing at which collective, and every rank's last ones.
std::string report(const std::string& problem, const std::vector<WatchedRank>& ranks);

}  // namespace sluice
