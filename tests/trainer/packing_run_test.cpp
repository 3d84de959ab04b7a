// tests/trainer/packing_run_test.cpp -- runs on packed rows: resuming, what is said at start,
// supply.
#include <gtest/gtest.h>

#include "tests/support/message.h"
#include "tests/support/tiny_run.h"
#include "trainer/loop/compare.h"

namespace sluice {
namespace {

class PackingRun : public test::TinyRun {
 protected:
  Config packed(const std::string& run) const {
    Config c = config(run);
    c.data.packing = "best_fit";
    return c;
  }
};

TEST_F(PackingRun, ResumesWithTheSameBits) {
  run_to_the_end(packed("straight"));
  run_killed_after(7, packed("killed"));
  for (const std::string& d : compare_runs(dir_ / "straight", dir_ / "killed")) ADD_FAILURE() << d;
  EXPECT_NE(log(packed("straight")).find("packing  data.train[0] ("), std::string::npos)
      << log(packed("straight"));
  Config c = packed("killed");
  c.data.packing = "concatenate";
  EXPECT_NE(error_of(c).find("data.packing from step 0: was best_fit, is concatenate"),
            std::string::npos)
      << error_of(c);
}

TEST_F(PackingRun, RunningOutIsAnnouncedBeforeTheFirstStep) {
  for (const char* packing : {"concatenate", "best_fit"}) {
    Config c = config("run");
    c.data.packing = packing;
    c.data.train = {{.path = dir_ / "train.h5", .weight = 5, .max_epochs = 100},
                    {.path = dir_ / "valid.h5", .weight = 3, .max_epochs = 2},
                    {.path = dir_ / "train.h5", .weight = 1, .max_epochs = 100}};
    c.train.steps = 200;
    test::expect_contains(error_of(c), {"data.train[1] (", "valid.h5) has", "may be read 2 times",
                                        "200 steps need 200 rows"});
  }
}

}  // namespace
}  // namespace sluice
