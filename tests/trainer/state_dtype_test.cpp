// tests/trainer/state_dtype_test.cpp -- runs with optim.state_dtype: bf16: planned, resumed, and
// not mixed with f32 states.
#include <gtest/gtest.h>

#include "tests/support/message.h"
#include "tests/support/tiny_run.h"
#include "trainer/loop/compare.h"

namespace sluice {
namespace {

class StateDtypeRun : public test::TinyRun {
 protected:
  Config narrow(const std::string& run, const std::string& kind) const {
    Config c = config(run);
    c.optim.kind = kind;
    c.optim.state_dtype = "bf16";
    return c;
  }
};

TEST_F(StateDtypeRun, IsPlannedAndTaken) {
  for (const char* kind : {"adamw", "muon"}) {
    const Config c = narrow(kind, kind);
    Config wide = c;
    wide.optim.state_dtype = "f32";
    const MemoryPlan plan = plan_memory(c);
    EXPECT_EQ(2 * plan.moments, plan_memory(wide).moments);
    ::testing::internal::CaptureStdout();
    Trainer t(c);
    for (int i = 0; i < 3; ++i) t.train_step();
    ::testing::internal::GetCapturedStdout();
    EXPECT_EQ(t.memory().moments, plan.moments);
    EXPECT_EQ(t.arena_peak(), plan.step);
  }
}

TEST_F(StateDtypeRun, KilledAndResumedGivesTheSameBits) {
  for (const char* kind : {"adamw", "muon"}) {
    const Config straight = narrow(std::string(kind) + "_straight", kind),
                 killed = narrow(std::string(kind) + "_killed", kind);
    run_to_the_end(straight);
    run_killed_after(14, killed);
    EXPECT_NE(log(killed).find("(bitwise)"), std::string::npos) << log(killed);
    for (const std::string& d : compare_runs(straight.run.dir, killed.run.dir)) ADD_FAILURE() << d;
  }
}

// In neither direction: f32 states would be rounded behind the user's back, and bf16 ones would
// look as if they had never been.
TEST_F(StateDtypeRun, TheOtherTypeIsRefused) {
  for (const char* first : {"f32", "bf16"}) {
    Config c = config(first);
    c.train.steps = 7;
    c.optim.state_dtype = first;
    run_to_the_end(c);
    Config other = c;
    other.optim.state_dtype = std::string(first) == "f32" ? "bf16" : "f32";
    test::expect_contains(error_of(other), {"optim.state_dtype: was", "of the other type"});
    Config init = other;
    init.run.dir = dir_ / (std::string("init_") + first);
    init.train.steps = 24;
    init.run.init = InitConfig{.from = c.run.dir, .load = "all"};
    test::expect_contains(error_of(init), {first, other.optim.state_dtype});
    init.run.init->load = "weights";
    run_to_the_end(init);
  }
}

}  // namespace
}  // namespace sluice
