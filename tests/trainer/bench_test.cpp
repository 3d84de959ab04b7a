// The benches of whole models: what they report, and what they refuse.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/support/message.h"
#include "tests/support/tiny_model.h"
#include "trainer/bench/decode_bench.h"
#include "trainer/bench/step_bench.h"

namespace sluice {

static Config tiny() {
  Config c;
  c.model = test::tiny_config();
  c.run.threads = 2;
  c.data.seq_len_tokens = 24;
  c.train.batch_tokens = 96;
  c.train.micro_batch_tokens = 48;
  return c;
}

TEST(Bench, StepIsCheckedAndItsTimeIsAllAccountedFor) {
  const nlohmann::ordered_json r = bench_step(tiny(), {.repeats = 3});
  EXPECT_NEAR(r["loss_f32"].get<double>(), r["loss_f64"].get<double>(), 1e-4);
  EXPECT_EQ(r["bytes"]["step_planned"], r["bytes"]["step_used"]);
  EXPECT_EQ(r["ops"]["linear_cross_entropy"]["calls"].get<double>(), 2);  // micro-batches
  ASSERT_TRUE(r["ops"].contains("kda"));
  double forward = 0, backward = 0;
  for (const auto& [op, row] : r["ops"].items()) {
    forward += row["forward_seconds"].get<double>();
    backward += row["backward_seconds"].get<double>();
  }
  EXPECT_GT(forward, 0);
  EXPECT_GT(backward, 0);
  EXPECT_NE(bench_step_text(r).find("of the GEMM rate"), std::string::npos);
}

TEST(Bench, StepRefusesSizesThatDoNotDivide) {
  Config c = tiny();
  c.train.micro_batch_tokens = 40;
  EXPECT_NE(test::error_of([&] { bench_step(c, {}); }).find("must be a multiple"),
            std::string::npos);
  c = tiny();
  c.model.vocab_size.reset();
  EXPECT_NE(test::error_of([&] { bench_step(c, {}); }).find("model.vocab_size"), std::string::npos);
}

TEST(Bench, DecodeIsChecked) {
  const nlohmann::ordered_json r =
      bench_decode(tiny(), {.context_tokens = 40, .new_tokens = 3, .slots = 2});
  EXPECT_LT(r["logits_difference"].get<double>(), 1e-4 * r["logits_largest"].get<double>());
  EXPECT_GT(r["decode_tokens_per_second"].get<double>(), 0);
  EXPECT_NE(bench_decode_text(r).find("2 sequences"), std::string::npos);
  EXPECT_TRUE(r.contains("prefill_tokens_per_second"));
}

TEST(Bench, DecodeAfterAContextThatIsMadeUp) {
  const nlohmann::ordered_json r = bench_decode(
      tiny(), {.context_tokens = 3000, .new_tokens = 3, .slots = 2, .fill = ContextFill::made_up});
  EXPECT_GT(r["decode_ms"].get<double>(), 0);
  EXPECT_FALSE(r.contains("prefill_tokens_per_second"));
  EXPECT_NE(bench_decode_text(r).find("3000 tokens, made up, 2 sequences"), std::string::npos);
}

}  // namespace sluice
