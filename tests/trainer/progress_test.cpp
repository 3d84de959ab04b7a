// tests/trainer/progress_test.cpp -- what a terminal and what a file is given.
#include "trainer/metrics/progress.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>

namespace sluice {
namespace {

ProgressLine line(int64_t step) {
  return {.step = step,
          .steps = 300,
          .loss = 2.5,
          .grad_norm = 0.75,
          .lr = 1e-3,
          .tokens_per_second = 12345.6,
          .mfu = -1,
          .eta_seconds = 61};
}

TEST(Progress, Durations) {
  const std::pair<double, const char*> cases[] = {
      {0, "0s"},         {59.4, "59s"},   {59.5, "1m00s"},  {185, "3m05s"},
      {3599.6, "1h00m"}, {3725, "1h02m"}, {90000, "25h00m"}};
  for (const auto& [seconds, text] : cases) EXPECT_EQ(duration(seconds), text);
}

TEST(Progress, OneLine) {
  EXPECT_EQ(to_string(line(7)),
            "step   7/300  loss 2.5000  norm 0.750  lr 1.00e-03  12346 tok/s  ETA 1m01s");
  ProgressLine known = line(300);
  known.mfu = 0.4321;
  EXPECT_EQ(
      to_string(known),
      "step 300/300  loss 2.5000  norm 0.750  lr 1.00e-03  12346 tok/s  MFU 43.2%  ETA 1m01s");
}

// Standard output for the time of a test: the other end of a pipe or of a terminal.
std::string printed(int read_end, int write_end) {
  std::fflush(stdout);
  const int saved = dup(STDOUT_FILENO);
  dup2(write_end, STDOUT_FILENO);
  {
    Progress progress(10);
    for (const int64_t step : {1, 2, 10, 11}) progress.update(line(step));
    progress.note("saved");
    progress.update(line(300));
  }
  std::fflush(stdout);
  dup2(saved, STDOUT_FILENO);
  close(saved);
  close(write_end);
  std::string text;
  char part[4096];
  for (ssize_t n; (n = read(read_end, part, sizeof part)) > 0;) text.append(part, size_t(n));
  close(read_end);
  return text;
}

TEST(Progress, AFileGetsAFewPlainLines) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const std::string l1 = to_string(line(1)), l10 = to_string(line(10)), last = to_string(line(300));
  EXPECT_EQ(printed(ends[0], ends[1]), l1 + "\n" + l10 + "\nsaved\n" + last + "\n");
}

TEST(Progress, ATerminalsLineIsRedrawn) {
  const int terminal = posix_openpt(O_RDWR | O_NOCTTY);
  if (terminal < 0 || grantpt(terminal) != 0 || unlockpt(terminal) != 0)
    GTEST_SKIP() << "no pseudo-terminals here";
  const int screen = open(ptsname(terminal), O_RDWR | O_NOCTTY);
  ASSERT_GE(screen, 0);
  std::string want;
  for (const int64_t step : {1, 2, 10, 11}) want += "\r\x1b[2K" + to_string(line(step));
  want += "\r\x1b[2Ksaved\r\n\r\x1b[2K" + to_string(line(300)) + "\r\n";  // the tty adds \r
  EXPECT_EQ(printed(terminal, screen), want);
}

}  // namespace
}  // namespace sluice
