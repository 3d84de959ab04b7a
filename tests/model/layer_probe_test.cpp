// tests/model/layer_probe_test.cpp -- figures of recurrences against what the recurrences do.
#include "model/autograd/layer_probe.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/gdn/gdn.h"
#include "model/autograd/mixer_ops.h"
#include "tests/support/gradcheck.h"
#include "tests/support/tiny_model.h"

namespace sluice {
namespace {

using namespace test;

constexpr int64_t N = 300, HV = 2, K = 8, V = 4;  // more tokens than the probe looks at

// Half-lives as the definition's state has them: from ones, over N tokens that write nothing.
std::vector<double> seen(const Tensor& final_state) {  // [1, HV, K, V]
  std::vector<double> tokens;
  for (int64_t c = 0; c < HV * K; ++c)
    tokens.push_back(-double(N) * std::log(2.0) / std::log(element(final_state, c * V)));
  std::sort(tokens.begin(), tokens.end());
  return tokens;
}

struct Case {
  Buffer q{DType::f64, {N, HV, K}}, v{DType::f64, {N, HV, V}}, beta{DType::f64, {N, HV}};
  Buffer A_log{DType::f64, {HV}}, cu{DType::i32, {2}}, o{DType::f64, {N, HV, V}};
  Buffer initial{DType::f64, {1, HV, K, V}}, final{DType::f64, {1, HV, K, V}};
  Context ctx{.mode = Mode::reference};
  Case() {
    fill_normal(q.view(), 1);
    fill(initial.view(), 1);
    fill(beta.view(), -200);  // writes nothing
    A_log.view().as<double>()[0] = 0.3;
    A_log.view().as<double>()[1] = -0.5;
    cu.view().as<int32_t>()[1] = N;
  }
  LayerProbe::Recurrence measured(const ProbedRecurrence& r) {
    LayerProbe probe;
    probe.measure(7, r);
    EXPECT_EQ(probe.recurrences().size(), 1u);
    EXPECT_EQ(probe.recurrences()[0].group, 7);
    return probe.recurrences()[0];
  }
};

TEST(LayerProbe, HalfLivesAreThoseOfKdaStates) {
  for (const GateLaw law : {GateLaw::softplus, GateLaw::bounded}) {
    Case c;
    Buffer g(DType::f64, {N, HV, K}), dt_bias(DType::f64, {HV, K});
    fill_normal(dt_bias.view(), 3);
    for (int64_t n = 0; n < N; ++n)  // the same gate in all tokens, another one in each channel
      for (int64_t i = 0; i < HV * K; ++i) g.view().row<double>(n)[i] = -4 - 0.3 * double(i);
    const KdaParams params{.gate = law, .gate_lower_bound = -0.5, .beta_max = 2};
    KdaForward f{.q = c.q.view(),
                 .k = c.q.view(),
                 .v = c.v.view(),
                 .g = g.view(),
                 .beta = c.beta.view(),
                 .A_log = c.A_log.view(),
                 .dt_bias = dt_bias.view(),
                 .cu_seqlens = c.cu.view(),
                 .initial_state = c.initial.view(),
                 .o = c.o.view(),
                 .final_state = c.final.view(),
                 .saved = {},
                 .params = params};
    kda_forward(c.ctx, f);
    const auto r = c.measured({g.view().reshape({N, HV * K}), c.A_log.view(), dt_bias.view(),
                               c.beta.view(), params, c.final.view(), c.cu.view()});
    const std::vector<double> want = seen(c.final.view());  // of 16 channels
    EXPECT_NEAR(r.half_life_p10, want[2], 1e-9 * want[2]);  // rounded: 1.5, 7.5, 13.5
    EXPECT_NEAR(r.half_life_p50, want[8], 1e-9 * want[8]);
    EXPECT_NEAR(r.half_life_p90, want[14], 1e-9 * want[14]);
    EXPECT_GT(want[14], 2 * want[2]);
    EXPECT_LT(r.beta_mean, 1e-80);
  }
}

TEST(LayerProbe, HalfLivesAreThoseOfGdnAndMamba2States) {
  for (const bool delta_rule : {true, false}) {
    Case c;
    Buffer g(DType::f64, {N, HV}), dt_bias(DType::f64, {HV});
    fill(g.view(), -3);
    dt_bias.view().as<double>()[1] = -1;
    const Tensor beta = delta_rule ? c.beta.view() : Tensor{};
    GdnForward f{.q = c.q.view(),
                 .k = c.q.view(),
                 .v = c.v.view(),  // zeros: what Mamba2 writes
                 .g = g.view(),
                 .beta = beta,
                 .A_log = c.A_log.view(),
                 .dt_bias = dt_bias.view(),
                 .cu_seqlens = c.cu.view(),
                 .initial_state = c.initial.view(),
                 .o = c.o.view(),
                 .final_state = c.final.view(),
                 .saved = {},
                 .params = {.delta_rule = delta_rule}};
    gdn_forward(c.ctx, f);
    const auto r = c.measured(
        {g.view(), c.A_log.view(), dt_bias.view(), beta, {}, c.final.view(), c.cu.view()});
    const std::vector<double> want = seen(c.final.view());  // K equal ones a head
    EXPECT_NEAR(r.half_life_p10, want.front(), 1e-9 * want.front());
    EXPECT_NEAR(r.half_life_p90, want.back(), 1e-9 * want.back());
    EXPECT_GT(want.back(), 1.2 * want.front());
    EXPECT_EQ(std::isnan(r.beta_mean), !delta_rule);
  }
}

TEST(LayerProbe, MeansAreOverSpreadRowsAndStatesOfDocumentsWithTokens) {
  Buffer g(DType::f32, {N, 1}), one(DType::f32, {1}), fused(DType::f32, {N, 3});
  Buffer states(DType::f32, {3, 1, 2, 2}), cu(DType::i32, {4});
  fill(g.view(), -INFINITY);  // never forgets
  for (int64_t n = 0; n < N; ++n)
    fused.view().row<float>(n)[1] = n < N / 2 ? -50 : 50;         // beta 0, then its maximum
  cu.view().as<int32_t>()[1] = cu.view().as<int32_t>()[2] = 100;  // the second one is empty
  cu.view().as<int32_t>()[3] = N;
  fill(states.view(), 1e9);
  for (const int64_t s : {0, 2}) fill(states.view().rows(s, 1), s == 0 ? 3 : 4);
  LayerProbe probe;
  probe.measure(0, {g.view(),
                    one.view(),
                    one.view(),
                    fused.view().columns(1, 1),
                    {.beta_max = 2},
                    states.view(),
                    cu.view()});
  const auto& r = probe.recurrences().at(0);
  EXPECT_EQ(r.half_life_p50, INFINITY);
  EXPECT_DOUBLE_EQ(r.beta_mean, 1);
  EXPECT_DOUBLE_EQ(r.state_rms, std::sqrt(12.5));
}

// A tape that probes: its pass has the bits of one that does not, and takes what it was planned.
TEST(LayerProbe, OfAModel) {
  for (const char* linear : {"kda", "gdn", "mamba2"}) {
    PlainStore params(DType::f32);
    const Lm lm(tiny_config(linear), params);
    params.allocate();
    initialize(params, 1);
    const Documents docs({5, 0, 40, 0, 0, 20});
    const auto loss = [&](Context ctx, LayerProbe* probe) {
      Tape tape(ctx, params, Tape::Mode::infer);
      tape.probe_into(probe);
      const Var v = lm.loss(tape, docs.batch(), Recompute::none);
      return ctx.mode == Mode::plan ? 0 : *v.value.as<double>();
    };
    LayerProbe none, probe, again;
    Arena plan = Arena::plan(Device::cpu);
    loss({.mode = Mode::plan, .arena = &plan}, &none);
    EXPECT_TRUE(none.recurrences().empty());
    Arena arena(Device::cpu, plan.peak());
    arena.set_poison(Arena::Poison::on);
    const double with = loss({.arena = &arena}, &probe);
    EXPECT_EQ(arena.peak(), plan.peak());
    EXPECT_EQ(with, loss({.arena = &arena}, nullptr));
    loss({.arena = &arena}, &again);
    ASSERT_EQ(probe.recurrences().size(), 3u);
    for (size_t l = 0; l < 3; ++l) {
      const auto &r = probe.recurrences()[l], &s = again.recurrences()[l];
      EXPECT_EQ(params.group_name(r.group), cat("layers.", l));
      EXPECT_GT(r.half_life_p10, 0);
      EXPECT_LT(r.half_life_p10, r.half_life_p90);
      EXPECT_GT(r.state_rms, 0);
      EXPECT_LT(r.state_rms, 100);
      EXPECT_EQ(r.state_rms, s.state_rms);
      EXPECT_EQ(r.half_life_p50, s.half_life_p50);
    }
  }
}

// All logits and parameters of the gates 0: g = -ln 2, and beta half of its maximum; bounded, g is
// half of its bound.
TEST(LayerProbe, LawsAreThoseOfTheLayers) {
  for (const std::string kind : {"kda", "bounded", "gdn", "mamba2"}) {
    LmConfig config = tiny_config(kind == "bounded" ? "kda" : kind);
    if (kind == "bounded") config.kda.gate_lower_bound = -4.0;
    config.kda.allow_neg_eigval = kind == "gdn";  // beta up to 2
    PlainStore params(DType::f64);
    const Lm lm(config, params);
    params.allocate();
    initialize(params, 1);
    for (const Shard& s : params.shards())
      for (const char* part : {"A_log", "dt_bias", ".f_b_proj", ".fgb_proj", ".ag"})
        if (params.spec(s.id).name.find(part) != std::string::npos) fill(s.master, 0);
    Arena arena(Device::cpu, 1 << 24);
    LayerProbe probe;
    Tape tape({.arena = &arena}, params, Tape::Mode::infer);
    tape.probe_into(&probe);
    lm.loss(tape, Documents({9}).batch(), Recompute::none);
    const auto& r = probe.recurrences().at(2);
    EXPECT_NEAR(r.half_life_p50, kind == "bounded" ? std::log(2.0) / 2 : 1, 1e-12) << kind;
    if (kind != "mamba2") {
      EXPECT_NEAR(r.beta_mean, kind == "gdn" ? 1 : 0.5, 1e-12) << kind;
    }
  }
}

}  // namespace
}  // namespace sluice
