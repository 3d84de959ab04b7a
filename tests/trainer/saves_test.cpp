// tests/trainer/saves_test.cpp -- a run whose checkpoints are written aside, and one whose disk is
// full.
#include <gtest/gtest.h>

#include <cerrno>
#include <nlohmann/json.hpp>

#include "model/export/posix_file.h"
#include "tests/support/tiny_run.h"
#include "trainer/loop/compare.h"

namespace sluice {
namespace {

using nlohmann::json;

// Writes into these steps' checkpoints find no room.
template <class Full>
int64_t fail_if(const Full& full, DiskCall call, const std::string& path, int64_t bytes) {
  const size_t at = path.find(".tmp-step-");
  if (call != DiskCall::write || at == std::string::npos || !full(std::stol(path.substr(at + 10))))
    return bytes;
  errno = ENOSPC;
  return -1;
}
int64_t full_at_14(DiskCall call, const std::string& path, int64_t bytes) {
  return fail_if([](int64_t step) { return step == 14; }, call, path, bytes);
}
int64_t full_from_14(DiskCall call, const std::string& path, int64_t bytes) {
  return fail_if([](int64_t step) { return step >= 14; }, call, path, bytes);
}
int64_t full_at_24(DiskCall call, const std::string& path, int64_t bytes) {
  return fail_if([](int64_t step) { return step == 24; }, call, path, bytes);
}

class Saves : public test::TinyRun {
 protected:
  // In a child, with its disk as `hook` has it. The exit code; what was printed is in printed_.
  int run_with(const Config& c, DiskHook hook) {
    set_disk_hook(hook);  // the child inherits it
    testing::internal::CaptureStderr();
    const int status = run_child(c);
    set_disk_hook(nullptr);
    printed_ = log(c) + testing::internal::GetCapturedStderr();
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  std::vector<json> saves_of(const Config& c) const {
    std::ifstream file(c.run.dir + "/metrics.jsonl");
    std::vector<json> all;
    for (std::string line; std::getline(file, line);) {
      const json j = json::parse(line);
      if (j.at("event") == "checkpoint") all.push_back(j);
    }
    return all;
  }
  bool printed(const std::string& text) const { return printed_.find(text) != std::string::npos; }

  std::string printed_;
};

TEST_F(Saves, AsynchronousOnesAreTheSynchronousOnes) {
  const Config async = config("async", 2);
  Config sync = config("sync", 2);
  sync.checkpoint.async = false;
  ASSERT_EQ(run_with(async, nullptr), 0) << printed_;
  EXPECT_TRUE(printed("memory   snapshot for asynchronous checkpoints")) << printed_;
  ASSERT_EQ(run_with(sync, nullptr), 0) << printed_;
  EXPECT_FALSE(printed("snapshot"));
  for (const std::string& d : compare_runs(async.run.dir, sync.run.dir)) ADD_FAILURE() << d;
  for (const Config& c : {async, sync}) {
    const std::vector<json> all = saves_of(c);
    ASSERT_EQ(all.size(), 4u);  // steps 7, 14, 21, 24
    EXPECT_EQ(all[3].at("saved_step"), 24);
    for (const json& e : all) {
      EXPECT_EQ(e.at("failed"), 0);
      EXPECT_GE(e.at("step"), e.at("saved_step"));
    }
  }
}

TEST_F(Saves, AFailureIsShownAndTheRunGoesOn) {
  const Config straight = config("straight");
  ASSERT_EQ(run_with(straight, nullptr), 0) << printed_;
  for (const bool async : {false, true}) {
    Config c = config(async ? "a" : "s");
    c.checkpoint.async = async;
    ASSERT_EQ(run_with(c, full_at_14), 0) << printed_;
    EXPECT_TRUE(printed("SAVE FAILED  step 14, 1 in a row: ") && printed("No space left"))
        << printed_;
    const std::vector<json> all = saves_of(c);
    ASSERT_EQ(all.size(), 4u);
    for (const json& e : all) EXPECT_EQ(e.at("failed"), e.at("saved_step") == 14 ? 1 : 0);
    for (const std::string& d : compare_runs(straight.run.dir, c.run.dir)) ADD_FAILURE() << d;
  }
}

TEST_F(Saves, ThreeFailuresInARowStopTheRun) {
  Config c = config("run"), straight = config("straight");
  c.train.steps = straight.train.steps = 40;
  ASSERT_EQ(run_with(c, full_from_14), 4) << printed_;
  EXPECT_TRUE(printed("SAVE FAILED  step 28, 3 in a row")) << printed_;
  EXPECT_TRUE(printed("3 saves in a row failed (above); the newest checkpoint is that of step 7"))
      << printed_;
  // Room again: the same command goes on from there, to the same end.
  ASSERT_EQ(run_with(c, nullptr), 0) << printed_;
  EXPECT_TRUE(printed("resumed")) << printed_;
  ASSERT_EQ(run_with(straight, nullptr), 0) << printed_;
  for (const std::string& d : compare_runs(c.run.dir, straight.run.dir)) ADD_FAILURE() << d;
}

TEST_F(Saves, AFailureOfTheLastOneIsAnError) {
  ASSERT_EQ(run_with(config("run"), full_at_24), 4) << printed_;
  EXPECT_TRUE(printed("SAVE FAILED  step 24, 1 in a row")) << printed_;
  EXPECT_TRUE(printed("the newest checkpoint is that of step 21")) << printed_;
}

}  // namespace
}  // namespace sluice
