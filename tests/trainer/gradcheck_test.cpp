// tests/trainer/gradcheck_test.cpp -- what `sluice gradcheck` runs, as tests; prints its tables.
#include <gtest/gtest.h>

#include <cmath>
#include <iostream>

#include "tests/support/cpu_context.h"
#include "trainer/gradcheck/gradcheck.h"

namespace sluice {
namespace {

// Central differences in f64 with h = 1e-5 leave about 1e-9; 1e-6 is the bar of the project.
constexpr double kBar = 1e-6;

void expect_right(const std::string& title, const std::vector<GradcheckRow>& rows) {
  std::cout << title << "\n" << to_string(rows);
  EXPECT_FALSE(rows.empty());
  for (const GradcheckRow& r : rows) EXPECT_LT(r.error, kBar) << r.name;
}

TEST(Gradcheck, OpsOfTheReference) {
  expect_right("ops, reference loops", gradcheck_ops(test::CpuContext(Mode::reference), 1));
}
TEST(Gradcheck, OpsOfTheFastPath) {
  expect_right("ops, fast path", gradcheck_ops(test::CpuContext(), 1));
}

class GradcheckModel : public ::testing::TestWithParam<std::tuple<bool, Recompute, Mode>> {};

INSTANTIATE_TEST_SUITE_P(Kinds, GradcheckModel,
                         ::testing::Combine(::testing::Bool(),
                                            ::testing::Values(Recompute::none, Recompute::block),
                                            ::testing::Values(Mode::run, Mode::reference)));

TEST_P(GradcheckModel, EveryParameter) {
  const auto [bounded, recompute, mode] = GetParam();
  LmConfig model = gradcheck_config();
  if (bounded) {
    model.kda.gate_lower_bound = -5.0;
    model.kda.allow_neg_eigval = true;
    model.kda.output_gate = "swish";
    model.mla.use_nope = false;
    model.tie_word_embeddings = true;
  }
  expect_right("model", gradcheck_model(test::CpuContext(mode), model, recompute, 1));
}

TEST(GradcheckVariants, EveryParameter) {
  for (const Recompute recompute : {Recompute::none, Recompute::selective, Recompute::block})
    for (const Mode mode : {Mode::run, Mode::reference}) {
      const test::CpuContext ctx(mode);
      expect_right("variants", gradcheck_model(ctx, gradcheck_variant_config(), recompute, 1));
      expect_right("gdn, mamba2", gradcheck_model(ctx, gradcheck_gdn_config(), recompute, 1));
    }
}

TEST(GradcheckMoe, EveryParameter) {
  for (const bool softmax : {false, true})
    for (const Recompute recompute : {Recompute::none, Recompute::selective, Recompute::block})
      for (const Mode mode : {Mode::run, Mode::reference}) {
        LmConfig model = gradcheck_moe_config();
        if (softmax) {
          model.moe.moe_router_activation_func = "softmax";
          model.moe.moe_renormalize = false;
          model.moe.num_shared_experts = 0;
          model.moe.first_k_dense_replace = 0;
        }
        expect_right("mixture of experts",
                     gradcheck_model(test::CpuContext(mode), model, recompute, 1));
      }
}

// NaN must not pass for small.
TEST(Gradcheck, WorstOfNanIsInfinite) {
  EXPECT_EQ(worst({{"a", 1e-9}, {"b", NAN}}), INFINITY);
}

}  // namespace
}  // namespace sluice
