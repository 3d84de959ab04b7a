// tests/trainer/resume_test.cpp -- 40 steps straight against 20 steps, SIGKILL at a random moment,
// and the same command again; and one thread against two: the same bits.
#include <gtest/gtest.h>

#include <random>

#include "tests/support/tiny_run.h"
#include "trainer/loop/compare.h"

namespace sluice {
namespace {

class Resume : public test::TinyRun {};

TEST_F(Resume, KilledAtRandomMomentsGivesTheSameBits) {
  Config straight = config("straight", 2), killed = config("killed", 2);
  straight.train.steps = killed.train.steps = 40;
  const auto begin = std::chrono::steady_clock::now();
  run_to_the_end(straight);
  const auto whole = std::chrono::duration_cast<std::chrono::milliseconds>(
                         std::chrono::steady_clock::now() - begin)
                         .count();
  std::mt19937 rng(std::random_device{}());  // another moment each time: any must do
  int kills = 0;
  for (; kills < 6; ++kills) {
    const int status = run_child(killed, [&](pid_t child) {
      std::this_thread::sleep_for(
          std::chrono::milliseconds(1 + int(rng() % unsigned(std::max<long>(2, whole)))));
      kill(child, SIGKILL);
    });
    if (status == 0) break;
    EXPECT_TRUE(WIFSIGNALED(status)) << status << log(killed);
  }
  std::cout << kills << " kills\n";
  run_to_the_end(killed);
  for (const std::string& d : compare_runs(straight.run.dir, killed.run.dir)) ADD_FAILURE() << d;
}

TEST_F(Resume, OneThreadEqualsTwo) {
  run_to_the_end(config("one", 1));
  run_to_the_end(config("two", 2));
  for (const std::string& d : compare_runs(dir_ / "one", dir_ / "two")) ADD_FAILURE() << d;
}

TEST_F(Resume, AnotherModelIsRefusedByName) {
  Config c = config("run");
  c.train.steps = 7;
  run_to_the_end(c);
  c.model.hidden_size = 48;
  EXPECT_NE(error_of(c).find("model.hidden_size: was 24, is 48"), std::string::npos) << error_of(c);
}

// checkpoint.keep_every_steps: saved at these steps too, and not counted against keep_last.
TEST_F(Resume, MilestonesStayBesideTheRollingCheckpoints) {
  Config c = config("run");
  c.checkpoint = {.every_steps = 7, .keep_last = 2, .keep_every_steps = 5};
  run_to_the_end(c);
  std::vector<int64_t> steps;
  for (const CheckpointRef& ref : list_checkpoints(c.run.dir)) steps.push_back(ref.step);
  EXPECT_EQ(steps, (std::vector<int64_t>{24, 21, 20, 15, 10, 5}));
}

}  // namespace
}  // namespace sluice
