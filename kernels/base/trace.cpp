// kernels/base/trace.cpp -- one list of spans, and it as text.
#include "kernels/base/trace.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <mutex>
#include <set>
#include <utility>

namespace sluice {

namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::atomic<bool> tracing{false};
std::mutex mutex;  // of the list
std::vector<TraceSpan> list;
thread_local int thread_rank = 0;
thread_local double last_op = 0;  // its end, of this thread

void add(TraceSpan span) {
  const std::lock_guard lock(mutex);
  if (tracing) list.push_back(std::move(span));
}

}  // namespace

bool Trace::on() {
  return tracing.load(std::memory_order_relaxed);
}

void Trace::start() {
  const std::lock_guard lock(mutex);
  if (tracing) return;
  list.clear();
  tracing = true;
}

std::vector<TraceSpan> Trace::stop() {
  const std::lock_guard lock(mutex);
  tracing = false;
  return std::exchange(list, {});
}

void Trace::set_rank(int rank) {
  thread_rank = rank;
}
int Trace::rank() {
  return thread_rank;
}

void Trace::op_done(const std::string& name) {
  if (!on()) return;
  const double end = now();
  add({name, TraceRow::ops, thread_rank, last_op, end});
  last_op = end;
}

TraceScope::TraceScope(const std::string& name, TraceRow row) : on_(Trace::on()) {
  if (!on_) return;
  span_ = {name, row, thread_rank, now(), 0};
  if (row == TraceRow::phases) last_op = span_.begin;
}

TraceScope::~TraceScope() {
  if (!on_) return;
  span_.end = now();
  if (span_.row == TraceRow::collectives) last_op = std::max(last_op, span_.end);
  add(std::move(span_));
}

static const char* name(TraceRow row) {
  switch (row) {
    case TraceRow::phases: return "phases";
    case TraceRow::blocks: return "blocks";
    case TraceRow::ops: return "ops";
    case TraceRow::collectives: return "collectives";
  }
  return "?";
}

static std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += uint8_t(c) < 0x20 ? ' ' : c;
  }
  return out + '"';
}

std::string trace_json(const std::vector<TraceSpan>& spans) {
  double first = spans.empty() ? 0 : spans.front().begin;
  std::set<std::pair<int, TraceRow>> rows;
  for (const TraceSpan& s : spans) {
    first = std::min(first, s.begin);
    rows.emplace(s.rank, s.row);
  }
  std::string text = "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n";
  char line[160];
  for (const auto& [rank, row] : rows) {
    std::snprintf(line, sizeof line,
                  "{\"ph\":\"M\",\"pid\":%d,\"name\":\"process_name\",\"args\":{\"name\":\"rank "
                  "%d\"}},\n",
                  rank, rank);
    text += line;
    std::snprintf(line, sizeof line,
                  "{\"ph\":\"M\",\"pid\":%d,\"tid\":%d,\"name\":\"thread_name\",\"args\":{\"name\":"
                  "\"%s\"}},\n",
                  rank, int(row), name(row));
    text += line;
  }
  for (size_t i = 0; i < spans.size(); ++i) {
    const TraceSpan& s = spans[i];
    std::snprintf(line, sizeof line, "\"ph\":\"X\",\"pid\":%d,\"tid\":%d,\"ts\":%.3f,\"dur\":%.3f}",
                  s.rank, int(s.row), (s.begin - first) * 1e6, (s.end - s.begin) * 1e6);
    text += "{\"name\":" + quoted(s.name) + "," + line + (i + 1 < spans.size() ? ",\n" : "\n");
  }
  return text + "]}\n";
}

}  // namespace sluice
