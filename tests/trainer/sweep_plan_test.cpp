// tests/trainer/sweep_plan_test.cpp -- what a sweep file resolves to, and what is wrong with one.
#include <gtest/gtest.h>

#include "tests/support/tiny_sweep.h"
#include "trainer/sweep/plan.h"

namespace sluice {
namespace {

class SweepPlanTest : public test::TinySweep {
 protected:
  SweepPlan plan(const std::string& text) const { return plan_sweep(sweep_file(text), {}); }
  std::string error(const std::string& text) const {
    try {
      plan(text);
    } catch (const Error& e) {
      std::string what = e.what();  // without the folder's name
      const std::string folder = dir_.string() + "/";
      for (size_t at; (at = what.find(folder)) != std::string::npos;) what.erase(at, folder.size());
      return what;
    }
    return "no error";
  }
};

TEST_F(SweepPlanTest, VariantsTimesAxes) {
  const SweepPlan p = plan(
      "variants: [{name: '3:1', set: {}}, {name: 'all full', set: {model.ratio: '0:1'}}],\n"
      "axes: {data.seq_len_tokens: [96, 48], run.seed: [4, 5]}, tune: {optim.lr: [1e-3, 2e-3]}");
  ASSERT_EQ(p.rows.size(), 4U);
  ASSERT_EQ(p.runs.size(), 16U);
  EXPECT_EQ(p.rows[1].name, "3:1 data.seq_len_tokens=48");
  EXPECT_EQ(p.rows[1].group, "data.seq_len_tokens=48");
  EXPECT_EQ(p.rows[2].config.model.ratio, "0:1");
  ASSERT_EQ(p.rows[3].candidates.size(), 2U);
  EXPECT_EQ(p.rows[3].candidates[1].tuned, "optim.lr=2e-3");
  const SweepRun& last = p.runs[p.rows[3].candidates[1].runs[1]];
  EXPECT_EQ(last.name, "all-full-data.seq_len_tokens=48-optim.lr=2e-3-run.seed=5");
  EXPECT_EQ(last.config.run.dir, dir_ / "sweep/runs" / last.name);
  EXPECT_EQ(last.config.optim.lr, 2e-3);
  EXPECT_EQ(last.config.run.seed, 5);
  EXPECT_EQ(last.config.data.seq_len_tokens, 48);
  EXPECT_FALSE(last.config.run.threads);
}

TEST_F(SweepPlanTest, ProblemsHaveTheirPlaceInTheSweepFile) {
  EXPECT_EQ(
      error("variants: [{name: a, set: {model.ration: '1:1'}},\n"
            "  {name: b, set: {model.ratio: '7:1', optim.lr: fast}}],\n"
            "axes: {run.seed: [1, -2]}"),
      "sweep.yaml:2:28: model.ration: unknown key; did you mean \"ratio\"?\n"
      "sweep.yaml:3:19: model.ratio: expected a ratio whose period fits num_hidden_layers (4), "
      "got \"7:1\", which needs 8\n"
      "sweep.yaml:3:39: optim.lr: expected a number above 0, got \"fast\"");
  EXPECT_EQ(error("axes: {run.seed: [1, -2]}"),
            "sweep.yaml:2:22: run.seed: expected a number of at least 0, got \"-2\"");
  EXPECT_EQ(error("variant: []"),
            "sweep.yaml:2:1: variant: unknown key; did you mean \"variants\"?");
  EXPECT_EQ(error("axes: {run.seed: 3}, parallel_runs: 0"),
            "sweep.yaml:2:18: axes.run.seed: expected a list of values, got \"3\"\n"
            "sweep.yaml:2:37: parallel_runs: expected auto, slurm or a count above 0, got \"0\"");
  EXPECT_EQ(error("variants: [{name: a}, {name: a}], baseline: c"),
            "sweep.yaml:2:11: variants: [1] and [0] have the name \"a\"\n"
            "sweep.yaml:2:45: baseline: expected the name of a variant, got \"c\"");
}

TEST_F(SweepPlanTest, AKeyHasOnePlace) {
  EXPECT_EQ(error("variants: [{name: a, set: {optim.lr: 1.0}}], axes: {optim.lr: [1.0, 2.0]}"),
            "sweep.yaml:2:28: optim.lr: given by a and at sweep.yaml:2:64 as optim.lr");
  EXPECT_EQ(error("set: {run.dir: x}"), "sweep.yaml:2:7: run.dir: run.dir is given by the sweep");
  EXPECT_EQ(
      error("tune: {model.hidden_size: [8, 16]}"),
      "sweep.yaml:2:28: model.hidden_size: expected a key of training, the model is the row's");
}

TEST_F(SweepPlanTest, TwoRunsOfOneModelAreNamed) {
  EXPECT_EQ(error("variants: [{name: a, set: {model.ratio: '3:1'}},\n"
                  "  {name: b, set: {model.layers: [kda, kda, kda, mla]}}]"),
            "sweep.yaml: a and b are the same");
  // Of a model without linear layers their kind says nothing.
  EXPECT_EQ(
      error("variants: [{name: a, set: {model.ratio: '0:1'}}], axes: {model.linear: [kda, gdn]}"),
      "sweep.yaml: a-model.linear=kda and a-model.linear=gdn are the same");
  EXPECT_EQ(error("variants: [{name: 'a:b', set: {model.ratio: '0:1'}}, {name: a-b}]"),
            "sweep.yaml: two runs have the folder a-b");
  EXPECT_EQ(error("tune: {optim.lr: [1e-3, 0.001]}"),
            "sweep.yaml: base-optim.lr=1e-3 and base-optim.lr=0.001 are the same");
  EXPECT_EQ(error("axes: {run.seed: [1, 01]}"),
            "sweep.yaml: base-run.seed=1 and base-run.seed=01 are the same");
  EXPECT_EQ(error("variants: [{name: a}, {name: b, set: {data.seed: 9}}]"),
            "sweep.yaml: data.seed: b has 9, a has 1; expected the same order of the data for all");
}

TEST_F(SweepPlanTest, MissingDataIsNamedWithTheCommandThatMakesIt) {
  EXPECT_EQ(error("set: {data.tokenizer: nowhere.json}, prepare: make data"),
            "data is missing:\n  nowhere.json\nmake it with: make data");
  sweep(sweep_file("set: {data.validation: {v: nowhere.h5}}, prepare: make data"));
  EXPECT_NE(printed_.find("data is missing:\n  nowhere.h5\nmake it with: make data"),
            std::string::npos)
      << printed_;
}

TEST_F(SweepPlanTest, OfSeveralValidationSetsOneDecides) {
  const std::string two = "set: {data.validation: {a: valid.h5, b: valid.h5}}, ";
  EXPECT_EQ(error(two + "tune: {optim.lr: [0.1, 0.2]}"),
            "sweep.yaml: select: expected the validation set that tune and fits go by, base has 2");
  EXPECT_EQ(error("select: c"), "sweep.yaml: select: base has no validation set \"c\"");
  EXPECT_EQ(plan(two + "select: b, tune: {optim.lr: [0.1, 0.2]}").rows[0].decides, "b");
}

TEST_F(SweepPlanTest, ATaskNeedsNoData) {
  const SweepPlan p = plan(
      "set: {data.tokenizer: tokenizer.json, data.train: [], data.validation: {}},\n"
      "axes: {data.task.kind: [palindrome, mqar]}");
  EXPECT_EQ(p.rows[1].decides, "task");
  EXPECT_GT(p.rows[1].vocab_size, p.rows[0].vocab_size);
}

TEST_F(SweepPlanTest, WidthsAreMatched) {
  const std::string variants =
      "variants: [{name: '3:1'}, {name: '1:1', set: {model.ratio: '1:1'}}, {name: '0:1', set: "
      "{model.ratio: '0:1'}}, {name: gdn, set: {model.linear: gdn}}],\n";
  for (const std::string what : {"parameters", "flops"}) {
    const SweepPlan p = plan(variants + "match: {what: " + what + ", tolerance: 0.004}");
    for (const SweepRow& r : p.rows) {
      const auto of = [&](const SweepRow& row) {
        return what == "flops" ? row.model.flops_per_token : double(row.model.parameters);
      };
      EXPECT_NEAR(of(r) / of(p.rows[0]), 1, 0.004) << r.name;
      EXPECT_EQ(r.config.model.intermediate_size, r.matched->after);
      EXPECT_EQ(p.runs[r.candidates[0].runs[0]].config.model.intermediate_size, r.matched->after);
      EXPECT_EQ(r.matched->before, 32);
      EXPECT_DOUBLE_EQ(r.matched->deviation, of(r) / of(p.rows[0]) - 1) << r.name;
      // What was counted without memory is what a run has.
      Config c = r.config;
      c.model.vocab_size = r.vocab_size;
      PlainStore params(DType::f32);
      const Lm lm(c.model, params);
      params.allocate();
      int64_t elements = 0;
      for (const Shard& s : params.shards()) elements += s.master.numel();
      EXPECT_EQ(r.model.parameters, elements);
    }
    EXPECT_NE(p.rows[2].matched->after, 32);
  }
  EXPECT_EQ(error(variants + "match: {by: model.ratio}"),
            "sweep.yaml: match.by: expected a key with a count, got \"model.ratio\"");
  const std::string moe = error(variants + "match: {by: model.moe.moe_intermediate_size}");
  EXPECT_NE(moe.find("sweep.yaml: match: 0:1 by model.moe.moe_intermediate_size: "),
            std::string::npos)
      << moe;
}

// A target of another length is another target, and no target is resized.
TEST_F(SweepPlanTest, WidthsAreMatchedToTheTargetOfTheSameAxes) {
  const SweepPlan p = plan(
      "variants: [{name: '3:1'}, {name: '0:1', set: {model.ratio: '0:1'}}],\n"
      "axes: {data.seq_len_tokens: [96, 48]}, match: {what: flops, to: '3:1', tolerance: 0.01}");
  ASSERT_EQ(p.rows.size(), 4U);
  for (const size_t target : {0, 1}) {
    const SweepRow &to = p.rows[target], &row = p.rows[target + 2];
    EXPECT_EQ(to.matched->after, 32) << to.name;
    EXPECT_EQ(to.config.data.seq_len_tokens, row.config.data.seq_len_tokens);
    EXPECT_NEAR(row.model.flops_per_token / to.model.flops_per_token, 1, 0.01) << row.name;
  }
  EXPECT_NE(p.rows[0].model.flops_per_token, p.rows[1].model.flops_per_token);
}

TEST_F(SweepPlanTest, ALadderOfOneComputeAndRunsWithoutMetricsAreRefused) {
  const std::string same = error("ladder: [{name: s}, {name: m, set: {optim.lr: 1e-4}}]");
  EXPECT_EQ(same.find("sweep.yaml: ladder: base: all sizes have the same compute, "), 0U) << same;
  EXPECT_EQ(error("set: {metrics.jsonl: false}"),
            "sweep.yaml: metrics.jsonl: base has false, expected true: the table is made of it");
}

TEST_F(SweepPlanTest, VariantsReplaceValuesOfSet) {
  EXPECT_EQ(plan("set: {optim.lr: 1.0}, variants: [{name: a, set: {optim.lr: 2.0}}]")
                .rows[0]
                .config.optim.lr,
            2.0);
  EXPECT_EQ(error("set: {optim.lr: 1.0}, axes: {optim.lr: [1.0, 2.0]}"),
            "sweep.yaml:2:7: optim.lr: given by set and at sweep.yaml:2:41 as optim.lr");
}

TEST_F(SweepPlanTest, AFurtherLengthOfATaskCanDecide) {
  EXPECT_EQ(
      plan("set: {data.tokenizer: tokenizer.json, data.train: [], data.validation: {},\n"
           "data.task.kind: stack, data.task.validation_lengths_tokens: [48]}, select: task_48")
          .rows[0]
          .decides,
      "task_48");
}

TEST_F(SweepPlanTest, WidthsAreMatchedWithinASize) {
  const std::string two =
      "variants: [{name: a}, {name: b, set: {model.ratio: '0:1'}}],\n"
      "ladder: [{name: s, set: {model.hidden_size: 8}}, {name: l}], ";
  const SweepPlan p = plan(two + "match: {to: b, multiple_of: 3, tolerance: 0.1}");
  ASSERT_EQ(p.rows.size(), 4U);
  for (const size_t target : {1, 3}) {
    EXPECT_EQ(p.rows[target].matched->after, 32);
    const SweepRow& other = p.rows[target - 1];
    EXPECT_EQ(other.matched->after % 3, 0);
    EXPECT_NEAR(double(other.model.parameters) / double(p.rows[target].model.parameters), 1, 0.1);
  }
  const std::string strict = error(two + "match: {tolerance: 1e-6}");
  EXPECT_NE(strict.find("expected within 0.0001 % of "), std::string::npos) << strict;
}

}  // namespace
}  // namespace sluice
