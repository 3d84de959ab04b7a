// tests/model/lm_test.cpp -- which mixer each layer has, what a model costs, and the residual sum.
#include "model/lm/lm.h"

#include "model/autograd/basic_ops.h"
#include "model/lm/cost.h"
#include "tests/support/cpu_context.h"
#include "tests/support/message.h"
#include "tests/support/tiny_model.h"

namespace sluice::test {
namespace {

// "kkkm": k linear, m full.
std::string pattern(const std::string& ratio, int64_t layers) {
  LmConfig c;
  c.ratio = ratio;
  c.num_hidden_layers = layers;
  std::string s;
  for (const std::string& kind : layer_pattern(c))
    s += kind == "kda" ? 'k' : kind == "mla" ? 'm' : '?';
  return s;
}

TEST(Pattern, Ratios) {
  EXPECT_EQ(pattern("3:1", 8), "kkkmkkkm");
  EXPECT_EQ(pattern("7:1", 8), "kkkkkkkm");
  EXPECT_EQ(pattern("1:1", 6), "kmkmkm");
  EXPECT_EQ(pattern("0:1", 3), "mmm");
  EXPECT_EQ(pattern("1:0", 3), "kkk");
  EXPECT_EQ(pattern("5:0", 2), "kk") << "one kind has no period";
  EXPECT_EQ(pattern("3:1", 6), "kkkmkm") << "the last layer is full as well";
  EXPECT_EQ(pattern("2:2", 6), "kkmmkm");
  EXPECT_EQ(pattern("3:1", 4), "kkkm");
  LmConfig c;
  c.num_hidden_layers = 3;
  c.linear = "identity";
  c.ratio = "2:1";
  EXPECT_EQ(layer_pattern(c), (std::vector<std::string>{"identity", "identity", "mla"}));
  c.layers = {"mla", "kda", "identity"};  // instead of the ratio, also at the end
  EXPECT_EQ(layer_pattern(c), c.layers);
}

TEST(Pattern, WhatCannotBeIsSaid) {
  for (const char* bad : {"3", "3:", ":1", "3:1:1", "3 : 1", "-1:2", "1:-1", "0:0", "a:b", "",
                          "3:1 ", "9223372036854775807:1", "3000000000:1"})
    EXPECT_FALSE(is_ratio(bad)) << bad;
  expect_contains(error_of([] { pattern("7:1", 4); }),
                  {"period fits num_hidden_layers (4), got \"7:1\", which needs 8"});
  expect_contains(error_of([] { pattern("2147483647:2147483647", 4); }),
                  {"which needs 4294967294"});
  expect_contains(error_of([] { pattern("x", 4); }), {"ratio is \"x\""});
  LmConfig c;
  c.num_hidden_layers = 3;
  c.layers = {"kda"};
  EXPECT_EQ(pattern_problem(c), "expected 3 entries (num_hidden_layers), got 1");
  c.layers = {"kda", "mla", "kdaa"};
  EXPECT_EQ(pattern_problem(c),
            "expected one of kda, gdn, mamba2, mla, identity, got \"kdaa\"; did you mean \"kda\"?");
  c.layers = {"kda", "mla", "transformer"};
  EXPECT_EQ(pattern_problem(c),
            "expected one of kda, gdn, mamba2, mla, identity, got \"transformer\"");
}

// The tiny model by hand: D 24, F 32, vocabulary 29; KDA with 2 heads, 4 value heads of 8,
// convolution 4; MLA with 2 heads, r 12, 8 + 4 and 8.
TEST(Cost, ParametersByHand) {
  PlainStore store(DType::f32);
  const Lm lm(tiny_config(), store);
  const int64_t kda = 64 * 24 + 64 * 4        // q, k, v (16 + 16 + 32) and their convolution
                      + (8 + 8 + 4) * 24      // f_a, g_a, b
                      + 32 * 8 + 32 * 8       // f_b, g_b
                      + 4 + 32                // A_log, dt_bias
                      + 8 + 24 * 32 + 24;     // o_norm, o, mixer_norm
  const int64_t mla = 24 * 24 + 16 * 24 + 12  // q, kv_a, its norm
                      + 32 * 12 + 24 * 16 + 24;
  const int64_t ffn = 3 * 24 * 32 + 24;
  EXPECT_EQ(kda, 3620);
  EXPECT_EQ(mla, 1764);
  EXPECT_EQ(store.numel(), 3 * kda + mla + 4 * ffn + 29 * 24 + (29 * 24 + 24));
  EXPECT_EQ(store.numel(), 23352);
  LmConfig tied = tiny_config();
  tied.tie_word_embeddings = true;
  PlainStore smaller(DType::f32);
  const Lm of_tied(tied, smaller);
  EXPECT_EQ(smaller.numel(), 23352 - 29 * 24);
}

TEST(Cost, FlopsByHand) {
  PlainStore store(DType::f32);
  const Lm lm(tiny_config(), store);
  const int64_t T = 100;
  // Two for each weight; KDA's chunks 6 K^2 + 3 C K + C^2 a value head; MLA against T / 2 keys.
  const double kda = 2 * (64 * 24 + 64 * 4 + 20 * 24 + 2 * 32 * 8 + 24 * 32) +
                     4 * (6 * 8 * 8 + 3 * 64 * 8 + 64 * 64);
  const double mla = 2 * (24 * 24 + 16 * 24 + 32 * 12 + 24 * 16) + 2 * 2 * (8 + 4 + 8) * T / 2;
  const double ffn = 2 * 3 * 24 * 32, head = 2 * 29 * 24;
  EXPECT_EQ(lm.mixer_cost(0, T).matmul + lm.mixer_cost(0, T).sequence, kda);
  EXPECT_EQ(lm.mixer_cost(3, T).matmul + lm.mixer_cost(3, T).sequence, mla);
  EXPECT_EQ(train_flops_per_token(lm, T), 3 * (3 * kda + mla + 4 * ffn + head));
  EXPECT_EQ(train_flops_per_token(lm, T), 362352);
  const std::string table = cost_table(lm, store, T);
  std::printf("%s", table.c_str());
  expect_contains(table,
                  {"kda               3          10860          10860                  0.094\n",
                   "mla               1           1764           1764                  0.007\n",
                   "ffn dense         4           9312           9312                  0.018\n",
                   "all               4          23352          23352                  0.121\n"});
}

TEST(SumResidual, AddsToTheStream) {
  const CpuContext ctx(Mode::run, 1, 1 << 16);
  PlainStore store(DType::f64);
  Tape tape(ctx, store, Tape::Mode::infer);
  const Buffer a(DType::f64, {2, 3}), b(DType::f64, {2, 3});
  fill(a.view(), 2), fill(b.view(), 5);
  const SumResidual residual;
  SumResidual::State state = residual.start(tape, tape.input(a.view()));
  EXPECT_EQ(element(residual.read(tape, state).value, 5), 2);
  const SumResidual::State before = state;
  residual.write(tape, state, tape.input(b.view()));
  EXPECT_EQ(element(residual.read(tape, state).value, 5), 7);
  EXPECT_EQ(element(residual.finish(tape, state).value, 0), 7);
  EXPECT_EQ(element(residual.read(tape, before).value, 5), 2) << "a copy of the state is its own";
}

}  // namespace
}  // namespace sluice::test
