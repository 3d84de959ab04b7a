// tests/model/mixer_layers_test.cpp -- what the mixers' variants compute, by weights for which one
// variant must equal another.
#include <gtest/gtest.h>

#include <cmath>

#include "model/layers/registry.h"
#include "tests/support/cpu_context.h"
#include "tests/support/tiny_model.h"

namespace sluice {
namespace {

// One mixer with its parameters in f64; equal names start with equal values.
struct OneMixer {
  OneMixer(const std::string& kind, const LayerConfig& config) : params(DType::f64) {
    const int group = params.add_group("layer");
    layer = make_mixer(kind, {params, group, "m", 0.3}, config);
    params.allocate();
    initialize(params, 3);
  }
  Tensor weight(const std::string& name) {
    for (const Shard& s : params.shards())
      if (params.spec(s.id).name == "m." + name) {
        const auto& shape = params.spec(s.id).shape;
        return s.master.reshape({shape[0], shape.size() > 1 ? shape[1] : 1});
      }
    throw Error("no weight " + name);
  }
  // Of documents of 3, 0 and 47 tokens, [50, D] with rows of unit mean square.
  std::vector<double> output(int64_t D) {
    const test::CpuContext ctx;
    const test::Documents docs({3, 0, 47});
    const Buffer x(DType::f64, {50, D});
    test::fill_normal(x.view(), 9);
    for (int64_t n = 0; n < 50; ++n) {
      double squares = 0, *row = x.view().row<double>(n);
      for (int64_t d = 0; d < D; ++d) squares += row[d] * row[d];
      for (int64_t d = 0; d < D; ++d) row[d] /= std::sqrt(squares / double(D));
    }
    Tape tape(ctx, params, Tape::Mode::infer);
    const auto y = tape.block("m", {0}, Recompute::none, [&] {
      return std::vector<Var>{
          layer->forward(tape, tape.input(x.view()), docs.batch().sequences, nullptr)};
    });
    const double* p = y[0].value.as<double>();
    return {p, p + y[0].value.numel()};
  }

  PlainStore params;
  std::unique_ptr<Mixer> layer;
};

LayerConfig layer_config() {
  const LmConfig c = test::tiny_config();
  return {.hidden_size = c.hidden_size,
          .intermediate_size = c.intermediate_size,
          .rms_norm_eps = 1e-12,
          .kda = c.kda,
          .mla = c.mla};
}

void expect_near(const std::vector<double>& a, const std::vector<double>& b, double tolerance) {
  ASSERT_EQ(a.size(), b.size());
  double size = 0;
  for (const double x : b) size = std::max(size, std::abs(x));
  EXPECT_GT(size, 1e-3);
  for (size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], tolerance * size) << i;
}

// Logits of 0 gate by one half, which no later product rounds.
TEST(MlaLayer, OutputGateOfZeroHalves) {
  LayerConfig c = layer_config();
  OneMixer plain("mla", c);
  c.mla.use_output_gate = true;
  OneMixer gated("mla", c);
  test::fill(gated.weight("g_proj"), 0);
  std::vector<double> half = plain.output(c.hidden_size);
  for (double& x : half) x /= 2;
  EXPECT_TRUE(gated.output(c.hidden_size) == half);
}

// W_qa = I and rows of unit mean square: the norm changes nothing, and W_qb is W_q.
TEST(MlaLayer, QueriesOfFullRankAreThePlainOnes) {
  LayerConfig c = layer_config();
  OneMixer plain("mla", c);
  c.mla.q_lora_rank = c.hidden_size;
  OneMixer low_rank("mla", c);
  test::fill(low_rank.weight("q_a_proj"), 0);
  for (int64_t d = 0; d < c.hidden_size; ++d) low_rank.weight("q_a_proj").row<double>(d)[d] = 1;
  copy(plain.weight("q_proj"), low_rank.weight("q_b_proj"));
  // eps of 1e-12 beside a mean square of 1.
  expect_near(low_rank.output(c.hidden_size), plain.output(c.hidden_size), 1e-11);
}

// A convolution that passes its input through leaves SiLU alone.
TEST(KdaLayer, NoConvolutionIsSilu) {
  LayerConfig c = layer_config();
  OneMixer conv("kda", c);
  const int64_t W = c.kda.short_conv_kernel_size;
  const Tensor taps = conv.weight("qkv_conv");
  test::fill(taps, 0);
  for (int64_t i = 0; i < taps.dim(0); ++i) taps.row<double>(i)[W - 1] = 1;
  c.kda.short_conv_kernel_size = 0;
  OneMixer none("kda", c);
  EXPECT_TRUE(none.output(c.hidden_size) == conv.output(c.hidden_size));
}

// W_g = W_gb W_ga.
TEST(KdaLayer, FullRankGateIsTheProductOfALowRankPair) {
  LayerConfig c = layer_config();
  const int64_t K = c.kda.head_dim, HV = c.kda.num_value_heads;
  for (const char* activation : {"sigmoid", "swish"}) {
    c.kda.output_gate = activation;
    c.kda.use_full_rank_gate = false;
    OneMixer low_rank("kda", c);
    c.kda.use_full_rank_gate = true;
    OneMixer full("kda", c);
    const Tensor from = low_rank.weight("fgb_proj"), to = full.weight("fgb_proj");
    copy(from.rows(0, K), to.rows(0, K));                               // f_a
    copy(from.rows(2 * K, HV), to.rows(K + HV * K, HV));                // beta
    const Tensor a = from.rows(K, K), b = low_rank.weight("g_b_proj");  // [K, D], [HV*K, K]
    for (int64_t i = 0; i < HV * K; ++i)
      for (int64_t d = 0; d < c.hidden_size; ++d) {
        double& w = to.row<double>(K + i)[d];
        w = 0;
        for (int64_t k = 0; k < K; ++k) w += b.row<double>(i)[k] * a.row<double>(k)[d];
      }
    expect_near(full.output(c.hidden_size), low_rank.output(c.hidden_size), 1e-12);
  }
}

}  // namespace
}  // namespace sluice
