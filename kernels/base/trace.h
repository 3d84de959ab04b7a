// kernels/base/trace.h -- spans of work by rank and row, for `sluice train --profile`: by the
// host's clock, so of work that the host does itself.
//
// Off, a scope is a test of a flag. One trace a process at a time.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace sluice {

enum class TraceRow : uint8_t { phases, blocks, ops, collectives };

struct TraceSpan {
  std::string name;
  TraceRow row = TraceRow::ops;
  int rank = 0;               // of the thread that did it
  double begin = 0, end = 0;  // seconds of the host's steady clock
};

class Trace {
 public:
  static bool on();
  static void start();                   // of those who start it again, the first
  static std::vector<TraceSpan> stop();  // to whoever comes first; nothing to others

  // Of this thread: ranks may be threads of one process.
  static void set_rank(int rank);
  static int rank();

  // An op of this thread, from the end of the op before or the start of the phase.
  static void op_done(const std::string& name);
};

// From here to the end of the scope.
class TraceScope {
 public:
  TraceScope(const std::string& name, TraceRow row);
  ~TraceScope();
  TraceScope(const TraceScope&) = delete;
  TraceScope& operator=(const TraceScope&) = delete;

 private:
  TraceSpan span_;
  bool on_;
};

// Chrome's trace format (chrome://tracing, ui.perfetto.dev): a process a rank, a thread a row.
std::string trace_json(const std::vector<TraceSpan>& spans);

}  // namespace sluice
