// tests/trainer/sweep_table_test.cpp -- tables of metrics that are written here: losses that are
// not finite, settings that differ, sizes, baselines.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/tiny_sweep.h"
#include "trainer/sweep/table.h"

namespace sluice {
namespace {

class SweepTableTest : public test::TinySweep {
 protected:
  SweepPlan plan(const std::string& text) const { return plan_sweep(sweep_file(text), {}); }
  // A run that is done, with this loss, as JSON, in its last validation; 1 in the one before.
  void done(const SweepPlan& p, const std::string& run, const std::string& loss) const {
    const std::filesystem::path folder = dir_ / "sweep/runs" / run;
    std::filesystem::create_directories(folder);
    std::ofstream(folder / "metrics.jsonl")
        << R"({"event":"valid.v","step":4,"loss":1,"old":1})"
        << "\n"
        << R"({"event":"valid.v","step":8,"loss":)" << loss << "}\n"
        << R"({"event":"done","step":8})"
        << "\n";
    ASSERT_TRUE(std::any_of(p.runs.begin(), p.runs.end(), [&](const SweepRun& r) {
      return r.name == run;
    })) << run;
  }
};

TEST_F(SweepTableTest, ALossThatIsNotFiniteIsLeftOutAndNamed) {
  const SweepPlan p = plan(
      "variants: [{name: a}, {name: b, set: {model.ratio: '1:1'}}], tune: {optim.lr: [0.1, 0.2]}");
  done(p, "a-optim.lr=0.1", "\"nan\"");
  done(p, "a-optim.lr=0.2", "3");
  done(p, "b-optim.lr=0.1", "\"inf\"");
  const SweepTable t = make_table(p, {});
  ASSERT_EQ(t.rows.size(), 2U);
  EXPECT_EQ(t.rows[0].tuned, "optim.lr=0.2");
  EXPECT_DOUBLE_EQ(t.rows[0].cells.at("valid_ppl.v").value.mean, std::exp(3.0));
  EXPECT_FALSE(t.rows[0].cells.contains("old.v"));  // the last event does not have it
  EXPECT_FALSE(t.rows[1].cells.contains("valid_ppl.v"));
  EXPECT_EQ(t.notes, std::vector<std::string>{"b: valid_ppl.v is not finite"});
}

TEST_F(SweepTableTest, ARowHasTheConfigOfItsBestSetting) {
  const SweepPlan p = plan(
      "tune: {train.batch_tokens: [96, 192]}, ladder: [{name: s, set: {train.steps: 4}}, {name: "
      "m}]");
  for (const char* size : {"s", "m"})
    for (const auto& [batch, loss] : {std::pair{"96", "3"}, {"192", "2"}})
      done(p, std::string("base-") + size + "-train.batch_tokens=" + batch, loss);
  const SweepTable t = make_table(p, {});
  EXPECT_EQ(t.config_differences.at("base s").at("train.batch_tokens"), "192");
  ASSERT_EQ(t.fits.size(), 1U);
  EXPECT_DOUBLE_EQ(t.fits[0].points[0].first, p.rows[0].model.flops_per_token * 4 * 192);
}

TEST_F(SweepTableTest, SizesWithoutALossAreNotInThePowerLaw) {
  const SweepPlan p = plan(
      "ladder: [{name: s, set: {train.steps: 2}}, {name: m, set: {train.steps: 4}}, {name: l}]");
  done(p, "base-s", "3");
  done(p, "base-m", "\"nan\"");
  done(p, "base-l", "-1");  // no power law goes through it
  SweepTable t = make_table(p, {});
  EXPECT_EQ(t.rows.size(), 3U);
  EXPECT_TRUE(t.fits.empty());
  ASSERT_EQ(t.notes.size(), 3U);
  EXPECT_EQ(t.notes[1], "base: 1 sizes without a finite loss are not in its power law");
  EXPECT_EQ(t.notes[2].find("base has no power law: "), 0U) << t.notes[2];
  done(p, "base-l", "2");
  t = make_table(p, {});
  ASSERT_EQ(t.fits.size(), 1U);
  EXPECT_EQ(t.fits[0].points.size(), 2U);
}

// The baseline of other axes is 10 times as far as the seeds are apart; that of its own is not.
TEST_F(SweepTableTest, TheBaselineIsTheOneOfTheSameAxes) {
  const SweepPlan p = plan(
      "variants: [{name: a}, {name: b, set: {model.ratio: '1:1'}}], baseline: a,\n"
      "axes: {optim.lr: [0.1, 0.2], run.seed: [1, 2]}");
  for (const std::string v : {"a", "b"})
    for (const std::string seed : {"1", "2"}) {
      done(p, v + "-optim.lr=0.1-run.seed=" + seed, seed == "1" ? "1.0" : "1.1");
      done(p, v + "-optim.lr=0.2-run.seed=" + seed, seed == "1" ? "2.0" : "2.1");
    }
  const SweepTable t = make_table(p, {});
  ASSERT_EQ(t.rows.size(), 4U);
  for (const SweepTableRow& r : t.rows)
    EXPECT_EQ(r.cells.at("valid_ppl.v").ns, r.variant == "b") << r.name;
}

}  // namespace
}  // namespace sluice
