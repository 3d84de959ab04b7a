// tests/trainer/profile_test.cpp -- a trace of two steps of two ranks has all rows, and shows that
// collectives run beside ops.
#include "trainer/loop/profile.h"

#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "kernels/comm/local_comm.h"
#include "tests/support/tiny_run.h"

namespace sluice {
namespace {

class Profile : public test::TinyRun {};

TEST_F(Profile, HasEveryRankAndRow) {
  Config c = config("run");
  c.train.steps = 7;
  c.data.validation.clear();
  const std::string file = dir_ / "trace.json";
  ::testing::internal::CaptureStdout();
  LocalGroup(2, {.latency_seconds = 1e-3}).run([&](Comm& world) {
    Trainer t(c, Trainer::Folder::any, &world);
    t.profile({.file = file, .after = 3, .steps = 2});
    EXPECT_EQ(t.run(), ExitCode::done);
  });
  ::testing::internal::GetCapturedStdout();
  const auto trace = nlohmann::json::parse(read(file));
  std::map<std::string, int> names;
  std::set<std::pair<int, int>> rows;                       // rank, row
  std::vector<std::pair<double, double>> ops, collectives;  // of rank 0
  for (const auto& e : trace["traceEvents"]) {
    if (e["ph"] != "X") continue;
    const int rank = e["pid"], row = e["tid"];
    rows.emplace(rank, row);
    if (rank == 0) ++names[e["name"]];
    const double begin = e["ts"], end = begin + e["dur"].get<double>();
    EXPECT_GE(end, begin) << e;
    if (rank == 0 && row == int(TraceRow::ops)) ops.emplace_back(begin, end);
    if (rank == 0 && row == int(TraceRow::collectives)) collectives.emplace_back(begin, end);
  }
  EXPECT_EQ(rows.size(), 8u);
  EXPECT_EQ(names["update"], 2);  // two steps
  EXPECT_EQ(names["forward"], names["backward"]);
  EXPECT_GT(names["layers.2"], 0);
  EXPECT_GT(names["linear"], 0);
  EXPECT_EQ(names["kda"], names["kda backward"]);
  EXPECT_GT(names["all_gather layers.1 weights"], 0);
  double beside = 0;  // seconds of collectives during ops
  for (const auto& [b, e] : collectives)
    for (const auto& [x, y] : ops) beside += std::max(0.0, std::min(e, y) - std::max(b, x)) * 1e-6;
  EXPECT_GT(beside, 1e-3);
}

}  // namespace
}  // namespace sluice
