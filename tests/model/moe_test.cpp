// tests/model/moe_test.cpp -- the layer against its formula written out token by token, what it
// registers and counts, and the config's checks.
#include <gtest/gtest.h>

#include "configs/schema.h"
#include "model/autograd/step_stats.h"
#include "model/layers/registry.h"
#include "model/lm/cost.h"
#include "tests/support/cpu_context.h"
#include "tests/support/tiny_model.h"

namespace sluice {
namespace {

LayerConfig layer_config() {
  LayerConfig c;
  c.hidden_size = 6;
  c.moe = {.num_experts = 5,
           .num_experts_per_token = 2,
           .moe_intermediate_size = 4,
           .num_shared_experts = 2,
           .routed_scaling_factor = 1.75};
  return c;
}

struct OneLayer {
  explicit OneLayer(const LayerConfig& config) : params(DType::f64) {
    const int group = params.add_group("layers.1");
    moe = make_ffn("moe", {params, group, "layers.1.ffn", 0.5}, config);
    params.allocate();
    initialize(params, 2);
    const ParamId bias = params.find("layers.1.ffn.e_score_correction_bias");
    const double b[] = {0, 0.2, -2, 0.3, 0};  // expert 2 is never chosen
    for (int e = 0; e < 5; ++e)
      test::set_element(params.shards()[size_t(bias.index)].master, e, b[e]);
  }
  double at(const std::string& name, int64_t i) const {
    return test::element(params.shards()[size_t(params.find("layers.1.ffn." + name).index)].master,
                         i);
  }
  PlainStore params;
  std::unique_ptr<Ffn> moe;
};

// W [rows, columns] of the parameter `name`, from element `begin`, times x.
std::vector<double> times(const OneLayer& l, const std::string& name, int64_t begin, int64_t rows,
                          const std::vector<double>& x) {
  std::vector<double> y(size_t(rows), 0);
  const int64_t C = int64_t(x.size());
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < C; ++c) y[size_t(r)] += l.at(name, begin + r * C + c) * x[size_t(c)];
  return y;
}

// down (silu(gate x) * up x) of the matrices that begin at these elements, F wide.
std::vector<double> gated(const OneLayer& l, const std::string& prefix, int64_t index, int64_t F,
                          const std::vector<double>& x) {
  const int64_t D = int64_t(x.size());
  const auto gu = times(l, prefix + "gate_up_proj", index * 2 * F * D, 2 * F, x);
  std::vector<double> h(static_cast<size_t>(F));
  for (size_t f = 0; f < h.size(); ++f) h[f] = gu[f] / (1 + std::exp(-gu[f])) * gu[f + size_t(F)];
  return times(l, prefix + "down_proj", index * D * F, D, h);
}

TEST(Moe, IsItsFormula) {
  for (const Mode mode : {Mode::run, Mode::reference}) {
    const OneLayer l(layer_config());
    const int64_t N = 40, D = 6, E = 5, F = 4;
    Buffer input(DType::f64, {N, D});
    test::fill_normal(input.view(), 8);
    const test::CpuContext ctx(mode);
    PlainStore& params = const_cast<PlainStore&>(l.params);
    Tape tape(ctx, params, Tape::Mode::infer);
    const Var y = tape.block("layers.1", {0}, Recompute::none, [&] {
      return std::vector<Var>{l.moe->forward(tape, tape.input(input.view()))};
    })[0];
    for (int64_t n = 0; n < N; ++n) {
      std::vector<double> x;
      for (int64_t d = 0; d < D; ++d) x.push_back(test::element(input.view(), n * D + d));
      std::vector<double> s = times(l, "router", 0, E, x), biased;
      for (double& z : s) z = 1 / (1 + std::exp(-z));
      for (size_t e = 0; e < s.size(); ++e)
        biased.push_back(s[e] + l.at("e_score_correction_bias", int64_t(e)));
      const auto first = size_t(std::max_element(biased.begin(), biased.end()) - biased.begin());
      biased[first] = -1e9;
      const auto second = size_t(std::max_element(biased.begin(), biased.end()) - biased.begin());
      std::vector<double> want = gated(l, "shared_experts.", 0, 2 * F, x);
      for (const size_t e : {first, second}) {
        const auto expert = gated(l, "experts.", int64_t(e), F, x);
        for (size_t d = 0; d < want.size(); ++d)
          want[d] += 1.75 * s[e] / (s[first] + s[second]) * expert[d];
      }
      for (int64_t d = 0; d < D; ++d)
        EXPECT_NEAR(test::element(y.value, n * D + d), want[size_t(d)], 1e-12) << n << " " << d;
    }
  }
}

TEST(Moe, Parameters) {
  const OneLayer l(layer_config());
  const auto spec = [&](const char* name) {
    return l.params.spec(l.params.find(cat("layers.1.ffn.", name)));
  };
  EXPECT_EQ(spec("router").shape, (std::vector<int64_t>{5, 6}));
  EXPECT_FALSE(spec("router").expert);
  EXPECT_EQ(spec("experts.gate_up_proj").shape, (std::vector<int64_t>{5, 8, 6}));
  EXPECT_TRUE(spec("experts.gate_up_proj").expert);
  EXPECT_EQ(spec("experts.gate_up_proj").row_blocks.size(), 2u);
  EXPECT_EQ(spec("experts.down_proj").shape, (std::vector<int64_t>{5, 6, 4}));
  EXPECT_EQ(spec("shared_experts.gate_up_proj").shape, (std::vector<int64_t>{16, 6}));
  const ParamSpec bias = spec("e_score_correction_bias");
  EXPECT_EQ(bias.shape, (std::vector<int64_t>{5}));
  EXPECT_EQ(bias.rule, UpdateRule::expert_load);
  EXPECT_FALSE(bias.weight_decay);
  // Two experts and the two shared ones, three matrices each, and the router.
  EXPECT_EQ(l.moe->cost().matmul, 2.0 * ((2 + 2) * 3 * 6 * 4 + 5 * 6));
}

TEST(Moe, WithoutSharedExperts) {
  LayerConfig c = layer_config();
  c.moe.num_shared_experts = 0;
  const OneLayer l(c);
  EXPECT_EQ(l.params.size(), 4);
  EXPECT_EQ(l.moe->cost().matmul, 2.0 * (2 * 3 * 6 * 4 + 5 * 6));
}

// Counted once a token: with and without recomputation, over micro-batches; not in validation.
TEST(Moe, CountsOnceAToken) {
  const test::CpuContext cpu;
  PlainStore params(DType::f64);
  const LmConfig config = test::tiny_moe_config();
  const Lm lm(config, params);
  params.allocate();
  initialize(params, 5);
  StepStats stats(params);
  ASSERT_EQ(stats.expert_counts().dim(0), config.num_hidden_layers - 1);
  const test::Documents docs({5, 0, 60, 1});
  std::vector<std::vector<int64_t>> seen;
  for (const Recompute recompute : {Recompute::none, Recompute::selective, Recompute::block}) {
    stats.start_step(cpu);
    params.start_step();
    for (int m = 0; m < 2; ++m) {
      Tape tape(cpu, params, Tape::Mode::train);
      tape.count_into(&stats);
      tape.backward(lm.loss(tape, docs.batch(), recompute));
    }
    const Tensor& c = stats.expert_counts();
    seen.emplace_back(c.as<int64_t>(), c.as<int64_t>() + c.numel());
    for (int64_t l = 0; l < c.dim(0); ++l) {
      int64_t sum = 0;
      for (int64_t e = 0; e < c.dim(1); ++e) sum += c.row<int64_t>(l)[e];
      EXPECT_EQ(sum, 2 * 66 * config.moe.num_experts_per_token);
    }
  }
  EXPECT_EQ(seen[0], seen[1]);
}

TEST(Moe, FirstLayersAreDense) {
  LmConfig config = test::tiny_moe_config();
  config.moe.first_k_dense_replace = 2;
  EXPECT_EQ(config.ffn_of(1), "dense");
  EXPECT_EQ(config.ffn_of(2), "moe");
  PlainStore params(DType::f32);
  const Lm lm(config, params);
  params.find("layers.1.ffn.gate_up_proj");
  params.find("layers.2.ffn.experts.gate_up_proj");
  const std::string table = cost_table(lm, params, 64);
  EXPECT_NE(table.find("ffn dense         2"), std::string::npos) << table;
  EXPECT_NE(table.find("ffn moe           2"), std::string::npos) << table;
}

// Parameters that a token meets: all but the E - k experts that it was not sent to.
TEST(Moe, ActiveParameters) {
  const LmConfig config = test::tiny_moe_config();
  PlainStore params(DType::f32);
  const Lm lm(config, params);
  const MoeConfig& m = config.moe;
  const int64_t idle = (m.num_experts - m.num_experts_per_token) * 3 * config.hidden_size *
                       m.moe_intermediate_size * (config.num_hidden_layers - 1);
  EXPECT_EQ(active_parameters(lm, params), params.numel() - idle);
}

std::string problems_of(const std::string& yaml) {
  try {
    config::load_string<LmConfig>(yaml, "c.yaml");
    return "none";
  } catch (const Error& e) {
    return e.what();
  }
}

TEST(Moe, ConfigErrors) {
  EXPECT_EQ(problems_of("ffn: moe\nmoe: {num_experts: 4, num_experts_per_token: 4}"), "none");
  EXPECT_EQ(problems_of("ffn: moe\nmoe: {num_experts: 4, num_experts_per_token: 5}"),
            "c.yaml:2:46: moe.num_experts_per_token: expected at most num_experts (4), got \"5\"");
  EXPECT_EQ(problems_of("ffn: moe\nnum_hidden_layers: 4\nmoe: {first_k_dense_replace: 4}"),
            "c.yaml:1:6: ffn: expected dense, as moe.first_k_dense_replace (4) covers all 4 "
            "layers, got \"moe\"");
  // Of a kind that is not chosen: kept, not used.
  EXPECT_EQ(problems_of("num_hidden_layers: 4\nmoe: {first_k_dense_replace: 4}"), "none");
  EXPECT_NE(problems_of("moe: {moe_router_activation_func: tanh}").find("sigmoid or softmax"),
            std::string::npos);
  EXPECT_NE(problems_of("ffn: mo").find("dense or moe"), std::string::npos);
}

}  // namespace
}  // namespace sluice
