// tests/trainer/metrics_test.cpp -- event files to the byte, lines after a resume, a full disk.
#include "trainer/metrics/metrics.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "kernels/base/check.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;

std::string hex(const std::string& bytes) {
  std::ostringstream out;
  for (const char c : bytes) {
    const char* digits = "0123456789abcdef";
    out << digits[uint8_t(c) >> 4] << digits[uint8_t(c) & 15];
  }
  return out.str();
}

std::string read(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

class MetricsFile : public ::testing::Test {
 protected:
  MetricsFile() : dir_(fs::temp_directory_path() / ("sluice_metrics_" + std::to_string(getpid()))) {
    fs::create_directories(dir_);
  }
  ~MetricsFile() override { fs::remove_all(dir_); }
  fs::path dir_;
};

// RFC 3720, B.4.
TEST(Crc32c, KnownValues) {
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43u);
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);
}

// What TensorBoard 2.21's own RecordWriter writes of the same messages.
TEST(TensorBoard, RecordsToTheByte) {
  EXPECT_EQ(hex(tf_record(version_event(1.5))),
            "1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c");
  EXPECT_EQ(hex(tf_record(start_event(1.5, 300))),
            "100000000000000095fbfe1809000000000000f83f10ac023a020801713b788a");
  EXPECT_EQ(
      hex(tf_record(scalars_event(1.5, 300, {{"train/loss", 2.5}, {"train/lr", 1e-3}}))),
      "3200000000000000241956ec09000000000000f83f10ac022a240a110a0a747261696e2f6c6f73731500002040"
      "0a0f0a08747261696e2f6c72156f12833ad1a09ff7");
}

TEST_F(MetricsFile, EveryStartHasItsOwnEventFileInOrder) {
  for (const int64_t resume_step : {0, 20, 20})
    TensorBoard(dir_, resume_step).write(21, {{"x", 1}});
  std::vector<std::string> names;
  for (const auto& e : fs::directory_iterator(dir_)) names.push_back(e.path().filename());
  std::sort(names.begin(), names.end());
  EXPECT_EQ(names, (std::vector<std::string>{"events.out.tfevents.0000000001.sluice",
                                             "events.out.tfevents.0000000002.sluice",
                                             "events.out.tfevents.0000000003.sluice"}));
}

// Readers drop the steps from START on that earlier files have: 21 and 22 of the first one.
TEST_F(MetricsFile, AResumedRunStartsBehindItsCheckpoint) {
  TensorBoard(dir_, 0).write(22, {{"x", 1}});
  TensorBoard(dir_, 20).write(21, {{"x", 1}});
  const std::string first = read(dir_ / "events.out.tfevents.0000000001.sluice"),
                    second = read(dir_ / "events.out.tfevents.0000000002.sluice");
  EXPECT_NE(first.find(start_event(0, 1).substr(9)), std::string::npos);  // without its time
  EXPECT_NE(second.find(start_event(0, 21).substr(9)), std::string::npos);
}

// A run that got to step 30 and was resumed at step 20, by TensorBoard's own reader.
TEST_F(MetricsFile, TensorBoardReadsEachStepOnce) {
  {
    TensorBoard first(dir_, 0);
    for (int64_t step = 1; step <= 30; ++step)
      first.write(step, {{"train/loss", double(step)}, {"train/lr", 0.5}});
  }
  {
    TensorBoard second(dir_, 20);
    for (int64_t step = 21; step <= 25; ++step)
      second.write(step, {{"train/loss", double(step) + 0.5}, {"train/lr", 0.5}});
  }
  const char* python = std::getenv("SLUICE_PYTHON");
  const std::string command =
      cat(python ? python : "python3", " " SLUICE_SOURCE_DIR "/tests/trainer/read_tensorboard.py ",
          dir_.string());
  FILE* pipe = popen(command.c_str(), "r");
  ASSERT_TRUE(pipe);
  std::string out;
  for (int c = std::fgetc(pipe); c != EOF; c = std::fgetc(pipe)) out += char(c);
  const int status = pclose(pipe);
  if (WEXITSTATUS(status) == 77)
    GTEST_SKIP() << "NOT CHECKED: " << out << "(SLUICE_PYTHON names a python that has it)";
  ASSERT_EQ(status, 0) << out;
  std::string expected;
  for (int step = 1; step <= 25; ++step)
    expected += cat("train/loss ", step, " ", step, step <= 20 ? ".0\n" : ".5\n");
  for (int step = 1; step <= 25; ++step) expected += cat("train/lr ", step, " 0.5\n");
  EXPECT_EQ(out, expected);
}

TEST_F(MetricsFile, LinesPastTheResumedStepAreCut) {
  const std::string path = dir_ / "metrics.jsonl";
  {
    JsonLines lines(path, 0);
    lines.write("start", 0, {}, {{"cpu", "a \"b\""}});
    for (int64_t step = 1; step <= 3; ++step)
      lines.write("train", step, {{"loss", step == 2 ? NAN : 0.1 * double(step)}});
    lines.write("save", 2, {}, {{"checkpoint", "x"}});
  }
  std::ofstream(path, std::ios::app) << "{\"event\":\"tra";  // a line that a crash has cut
  JsonLines(path, 2).write("resume", 2, {});
  EXPECT_EQ(read(path),
            "{\"event\":\"start\",\"step\":0,\"cpu\":\"a \\\"b\\\"\"}\n"
            "{\"event\":\"train\",\"step\":1,\"loss\":0.1}\n"
            "{\"event\":\"train\",\"step\":2,\"loss\":\"nan\"}\n"
            "{\"event\":\"resume\",\"step\":2}\n");
}

TEST_F(MetricsFile, NumbersGoToBothAndNotesToTheLines) {
  Metrics metrics(dir_, 0, {}, [](const std::string& w) { ADD_FAILURE() << w; });
  metrics.note("start", 0, {{"a", "b"}});
  metrics.write("train", 1, {{"loss", 2.5}});
  EXPECT_EQ(read(dir_ / "metrics.jsonl"),
            "{\"event\":\"start\",\"step\":0,\"a\":\"b\"}\n"
            "{\"event\":\"train\",\"step\":1,\"loss\":2.5}\n");
  const std::string events = read(dir_ / "tensorboard/events.out.tfevents.0000000001.sluice");
  EXPECT_NE(events.find("train/loss"), std::string::npos);
}

TEST_F(MetricsFile, WhatIsSwitchedOffIsNotThere) {
  Metrics metrics(dir_, 0, {.jsonl = false, .tensorboard = false}, [](const std::string&) {});
  metrics.write("train", 1, {{"loss", 2.5}});
  metrics.note("save", 1, {});
  EXPECT_TRUE(fs::is_empty(dir_));
}

// A file size limit stands for a full disk. In a child, which it would otherwise outlive.
TEST_F(MetricsFile, AFullDiskIsToldOnceAndTrainingGoesOn) {
  const pid_t child = fork();
  if (child == 0) {
    signal(SIGXFSZ, SIG_IGN);
    std::vector<std::string> warnings;
    Metrics metrics(dir_, 0, {.jsonl = true, .tensorboard = false},
                    [&](const std::string& w) { warnings.push_back(w); });
    rlimit limit{};
    getrlimit(RLIMIT_FSIZE, &limit);
    const rlim_t before = limit.rlim_cur;
    metrics.write("train", 1, {{"loss", 1}});
    limit.rlim_cur = 60;  // half of the next line fits
    setrlimit(RLIMIT_FSIZE, &limit);
    for (int64_t step = 2; step < 5; ++step) metrics.write("train", step, {{"loss", 1}});
    limit.rlim_cur = before;
    setrlimit(RLIMIT_FSIZE, &limit);
    metrics.write("train", 5, {{"loss", 1}});
    const bool ok = warnings.size() == 2 &&
                    warnings[0].find("File too large; training goes on") != std::string::npos &&
                    warnings[1].find("3 records were lost") != std::string::npos;
    for (const std::string& w : warnings) fprintf(stderr, "%s\n", w.c_str());
    _exit(ok ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(read(dir_ / "metrics.jsonl"),
            "{\"event\":\"train\",\"step\":1,\"loss\":1.0}\n"
            "{\"event\":\"train\",\"step\":5,\"loss\":1.0}\n");
}

}  // namespace
}  // namespace sluice
