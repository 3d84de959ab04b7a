// tests/model/variants_test.cpp -- what holds for the default mixers holds for each of their
// variants: parameters and FLOPs by hand, prefill == steps, plan == run, threads.
#include <gtest/gtest.h>

#include <iostream>
#include <map>

#include "configs/schema.h"
#include "model/generate/generator.h"
#include "model/lm/cost.h"
#include "tests/support/cpu_context.h"
#include "tests/support/tiny_model.h"

namespace sluice {
namespace {

class Variants : public ::testing::TestWithParam<test::Variant> {
 protected:
  Variants() : params_(DType::f32), lm_(GetParam().config, params_) {
    params_.allocate();
    initialize(params_, 5);
  }
  void train(const Context& ctx, const test::Documents& docs, Recompute recompute) {
    params_.start_step();
    Tape tape(ctx, params_, Tape::Mode::train);
    const Var loss = lm_.loss(tape, docs.batch(), recompute);
    tape.backward(loss);
    if (ctx.mode == Mode::run) loss_ = *loss.value.as<double>();
    params_.finish_gradients();
  }
  // Loss and all gradients.
  std::vector<double> trained(int threads, const test::Documents& docs, Recompute recompute) {
    const test::CpuContext ctx(Mode::run, threads);
    train(ctx, docs, recompute);
    std::vector<double> all{loss_};
    for (const Shard& s : params_.shards())
      for (int64_t i = 0; i < s.grad.numel(); ++i) all.push_back(test::element(s.grad, i));
    return all;
  }

  PlainStore params_;
  Lm lm_;
  test::Documents docs_{{1, 0, 40, 130, 3}}, long_docs_{{17, 0, 40, 130}};
  double loss_ = 0;
};

INSTANTIATE_TEST_SUITE_P(Mixers, Variants, ::testing::ValuesIn(test::mixer_variants()),
                         [](const auto& p) { return p.param.name; });

TEST_P(Variants, ThreadsAndRecomputationChangeNoBit) {
  EXPECT_TRUE(trained(1, docs_, Recompute::none) == trained(2, docs_, Recompute::none));
  // Documents under 16 tokens run token by token where nothing is kept (kernels/kda): not here.
  EXPECT_TRUE(trained(2, long_docs_, Recompute::none) == trained(2, long_docs_, Recompute::block));
}

TEST_P(Variants, PlanTakesWhatARunTakes) {
  for (const Recompute recompute : {Recompute::none, Recompute::selective, Recompute::block}) {
    Arena plan = Arena::plan(Device::cpu);
    train({.mode = Mode::plan, .arena = &plan}, docs_, recompute);
    Arena exact(Device::cpu, plan.peak());  // a byte more would throw
    train({.arena = &exact}, docs_, recompute);
    EXPECT_EQ(exact.peak(), plan.peak());
    EXPECT_EQ(exact.used(), 0);
  }
}

TEST_P(Variants, PrefillEqualsSteps) {
  const Context ctx;
  std::vector<int32_t> prompt;
  for (int64_t n = 0; n < 100; ++n) prompt.push_back(int32_t(random_u64(4, uint64_t(n)) % 29));
  const auto logits = [&](size_t piece) {
    Generator g(ctx, params_, lm_, DType::f32, {.max_tokens = 100, .prefill_chunk_tokens = 100});
    const int64_t slot = g.join().value();
    std::vector<double> v;
    for (size_t at = 0; at < prompt.size(); at += piece) {
      const Generator::Piece next{
          slot, std::span(prompt).subspan(at, std::min(piece, prompt.size() - at))};
      const Tensor out = g.feed(piece == 1 ? CacheStep::decode : CacheStep::prefill, {&next, 1});
      v.clear();
      for (int64_t i = 0; i < out.numel(); ++i) v.push_back(test::element(out, i));
    }
    return v;
  };
  const std::vector<double> whole = logits(100);
  for (const size_t piece : {1, 7, 99}) {
    const std::vector<double> pieces = logits(piece);
    double worst = 0, scale = 0;
    for (size_t i = 0; i < whole.size(); ++i) {
      worst = std::max(worst, std::abs(pieces[i] - whole[i]));
      scale = std::max(scale, std::abs(whole[i]));
    }
    std::cout << "pieces of " << piece << ": max difference " << worst << " of " << scale << "\n";
    EXPECT_LT(worst / scale, 2e-5);  // f32 sums in another order, through four layers
  }
}

// Parameters and FLOPs by hand, D = 24, per mixer:
//   KDA  H = 2, HV = 4, K = V = 8: q, k 2*16, v 32, so 64 columns
//     qkv 24*64 = 1536   conv 64 W   f_a 24*8 = 192   f_b 32*8 = 256   beta 24*4 = 96
//     gate: low rank 24*8 + 32*8 = 448, full rank 24*32 = 768   output 32*24 = 768
//     A_log 4, dt_bias 32, o_norm 8: no product
//   GDN  as KDA, but decay 24*4 = 96 for f_a and f_b, dt_bias 4; Mamba2 without beta
//   MLA  H = 2, nope 8, rope 4, V = 8, r = 12
//     q 24*24 = 576, or of rank a: 24 a + a (norm) + a 24   kv_a 24*16 = 384, norm 12, kv_b 12*32 =
//     384 gate 16*24 = 384   output 16*24 = 384
struct ByHand {
  int64_t linear_matrices, mla_matrices, mla_norms;
  int64_t linear_vectors = 4 + 32 + 8;
  double head_flops = 6 * 8 * 8 + 3 * 64 * 8 + 64 * 64;  // along the sequence
};
const std::map<std::string, ByHand> kByHand = {
    {"q_lora_and_output_gates",
     {1536 + 64 * 4 + 192 + 256 + 96 + 768 + 768, 480 + 384 + 384 + 384 + 384, 10 + 12}},
    {"no_conv", {1536 + 192 + 256 + 96 + 448 + 768, 576 + 384 + 384 + 384 + 384, 12}},
    {"conv_of_2_no_output_gate",
     {1536 + 64 * 2 + 192 + 256 + 96 + 768, 240 + 384 + 384 + 384, 5 + 12}},
    {"conv_of_3_full_rank_swish",
     {1536 + 64 * 3 + 192 + 256 + 96 + 768 + 768, 576 + 384 + 384 + 384, 12}},
    {"gdn", {1536 + 64 * 4 + 96 + 96 + 448 + 768, 576 + 384 + 384 + 384, 12, 4 + 4 + 8}},
    {"mamba2",
     {1536 + 64 * 4 + 96 + 768 + 768, 576 + 384 + 384 + 384, 12, 4 + 4 + 8,
      4 * 8 * 8 + 2 * 64 * 8}},
    {"gdn_no_conv_no_output_gate", {1536 + 96 + 96 + 768, 576 + 384 + 384 + 384, 12, 4 + 4 + 8}},
};

TEST_P(Variants, ParametersAndFlopsByHand) {
  const ByHand& want = kByHand.at(GetParam().name);
  const auto parameters = [&](const std::string& prefix) {
    int64_t n = 0;
    for (int i = 0; i < params_.size(); ++i)
      if (params_.spec({i}).name.rfind(prefix, 0) == 0) n += params_.spec({i}).numel();
    return n;
  };
  const int64_t context = 100;
  for (int layer = 0; layer < 3; ++layer) {  // 3:1
    EXPECT_EQ(parameters(cat("layers.", layer, ".", GetParam().config.linear, ".")),
              want.linear_matrices + want.linear_vectors);
    const LayerCost linear = lm_.mixer_cost(layer, context);
    EXPECT_EQ(linear.matmul, 2.0 * double(want.linear_matrices));
    EXPECT_EQ(linear.sequence, 4 * want.head_flops);
  }
  EXPECT_EQ(parameters("layers.3.mla."), want.mla_matrices + want.mla_norms);
  const LayerCost mla = lm_.mixer_cost(3, context);
  EXPECT_EQ(mla.matmul, 2.0 * double(want.mla_matrices));
  EXPECT_EQ(mla.sequence, 2.0 * 2 * (12 + 8) * context / 2);  // half the context on average
  // Embedding and head of 29 tokens, final norm; two norms and a SwiGLU of 32 a layer.
  EXPECT_EQ(params_.numel(), 2 * 29 * 24 + 24 + 4 * (2 * 24 + 3 * 24 * 32) +
                                 3 * (want.linear_matrices + want.linear_vectors) +
                                 want.mla_matrices + want.mla_norms);
}

// The rows of a fused weight are those of the matrices in it, by their published names.
TEST_P(Variants, RowBlocksCoverTheRows) {
  int fused = 0;
  for (int i = 0; i < params_.size(); ++i) {
    const ParamSpec& spec = params_.spec({i});
    int64_t rows = 0;
    for (const RowBlock& b : spec.row_blocks) rows += b.rows;
    if (!spec.row_blocks.empty()) {
      EXPECT_EQ(rows, spec.shape[0]) << spec.name;
      ++fused;
    }
  }
  EXPECT_GE(fused, 6);
}

TEST(VariantConfig, WrongValuesAreNamedWithTheirPlace) {
  const auto error = [](const std::string& yaml) -> std::string {
    try {
      config::load_string<LmConfig>(yaml, "c.yaml");
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  };
  struct Case {
    const char *yaml, *message;
  };
  for (const auto& [yaml, message] :
       {Case{"mla: {q_lora_rank: 0}",
             "c.yaml:1:20: mla.q_lora_rank: expected null (no low rank) or a count above 0, got "
             "\"0\""},
        {"mla:\n  use_output_gate: 2", "c.yaml:2:20: mla.use_output_gate: expected true or false"},
        {"kda: {short_conv_kernel_size: 5}",
         "c.yaml:1:31: kda.short_conv_kernel_size: expected 0 (no convolution), 2, 3 or 4, got "
         "\"5\""},
        {"kda: {short_conv_kernel_size: 1}", "kda.short_conv_kernel_size: expected 0"},
        {"kda: {short_conv_kernel_size: -1}", "kda.short_conv_kernel_size: expected 0"},
        {"kda: {output_gate: tanh}",
         "c.yaml:1:20: kda.output_gate: expected sigmoid, swish or none, got \"tanh\""},
        {"kda: {output_gate: none, use_full_rank_gate: true}",
         "c.yaml:1:46: kda.use_full_rank_gate: expected false with output_gate none, got "
         "\"true\""}})
    EXPECT_NE(error(yaml).find(message), std::string::npos) << yaml << ": " << error(yaml);
  EXPECT_EQ(error("{linear: gdn, kda: {allow_neg_eigval: true}}"), "no error");
  EXPECT_EQ(error("{linear: kda, full: gdn, kda: {gate_lower_bound: -5}}"), "no error");
  EXPECT_EQ(error("{mla: {q_lora_rank: 3}, kda: {use_full_rank_gate: true}}"), "no error");
}

}  // namespace
}  // namespace sluice
