// tests/kernels/trace_test.cpp -- spans by rank and row, and the text that trace viewers read.
#include "kernels/base/trace.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <thread>

namespace sluice {
namespace {

void sleep_ms(int ms) {
  std::this_thread::sleep_for(std::chrono::milliseconds(ms));
}

TEST(Trace, SpansHaveTheirTimesRowsAndRanks) {
  { const TraceScope before("before", TraceRow::ops); }
  Trace::start();
  {
    const TraceScope outer("phase", TraceRow::phases);
    std::thread other([] {
      Trace::set_rank(3);
      const TraceScope range("layers.0 gather", TraceRow::collectives);
      sleep_ms(5);
    });
    const TraceScope inner("op", TraceRow::ops);
    other.join();
  }
  std::vector<TraceSpan> spans = Trace::stop();
  { const TraceScope after("after", TraceRow::ops); }
  ASSERT_EQ(spans.size(), 3u);  // in the order in which they ended
  const TraceSpan &gather = spans[0], &op = spans[1], &phase = spans[2];
  EXPECT_EQ(gather.name, "layers.0 gather");
  EXPECT_EQ(gather.rank, 3);
  EXPECT_EQ(gather.row, TraceRow::collectives);
  EXPECT_GE(gather.end - gather.begin, 0.005);
  EXPECT_EQ(op.name, "op");
  EXPECT_EQ(op.rank, 0);
  EXPECT_EQ(phase.row, TraceRow::phases);
  EXPECT_LE(phase.begin, op.begin);
  EXPECT_GE(phase.end, op.end);
  EXPECT_GE(op.end, gather.end);
  EXPECT_FALSE(Trace::on());
  Trace::start();
  EXPECT_TRUE(Trace::stop().empty());
}

// What is open when a trace ends is not in it, nor in the next one.
TEST(Trace, ARangeThatOutlivesTheTraceIsLeftOut) {
  Trace::start();
  {
    const TraceScope range("long", TraceRow::ops);
    EXPECT_TRUE(Trace::stop().empty());
  }
  Trace::start();
  EXPECT_TRUE(Trace::stop().empty());
}

// Each from the end of the one before; the first from the start of the phase.
TEST(Trace, OpsFollowEachOther) {
  Trace::start();
  {
    const TraceScope phase("forward", TraceRow::phases);
    sleep_ms(2);
    Trace::op_done("linear");
    Trace::op_done("kda");
  }
  const std::vector<TraceSpan> spans = Trace::stop();
  ASSERT_EQ(spans.size(), 3u);
  EXPECT_EQ(spans[0].begin, spans[2].begin);
  EXPECT_GE(spans[0].end - spans[0].begin, 0.002);
  EXPECT_EQ(spans[1].begin, spans[0].end);
  EXPECT_EQ(spans[1].name, "kda");
}

TEST(Trace, TheTextIsChromes) {
  const std::vector<TraceSpan> spans{{"a \"quoted\"\n\\ name", TraceRow::ops, 1, 10.5, 10.501},
                                     {"wait", TraceRow::collectives, 0, 10.25, 10.75}};
  const auto j = nlohmann::json::parse(trace_json(spans));
  const auto& events = j["traceEvents"];
  ASSERT_EQ(events.size(), 6u);  // the names of two processes and two threads, and two spans
  std::vector<nlohmann::json> complete;
  for (const auto& e : events)
    if (e["ph"] == "X") complete.push_back(e);
  ASSERT_EQ(complete.size(), 2u);
  EXPECT_EQ(complete[0]["name"], "a \"quoted\" \\ name");
  EXPECT_EQ(complete[0]["pid"], 1);
  EXPECT_NEAR(complete[0]["ts"].get<double>(), 250000, 1e-3);  // microseconds after the first
  EXPECT_NEAR(complete[0]["dur"].get<double>(), 1000, 1e-3);
  EXPECT_EQ(complete[1]["ts"], 0);
  EXPECT_EQ(events[0]["args"]["name"], "rank 0");
  EXPECT_EQ(events[1]["args"]["name"], "collectives");
  EXPECT_EQ(nlohmann::json::parse(trace_json({}))["traceEvents"].size(), 0u);
}

}  // namespace
}  // namespace sluice
