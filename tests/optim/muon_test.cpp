// tests/optim/muon_test.cpp -- who has which tensor of a real model, Muon's step over it by hand,
// fused weights and experts as the matrices that they are.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>

#include "kernels/muon/muon.h"
#include "optim/optimizer.h"
#include "tests/support/cpu_context.h"
#include "tests/support/message.h"
#include "tests/support/tiny_model.h"

namespace sluice {
namespace {

using test::CpuContext;
using test::element;

OptimConfig config() {
  OptimConfig c;
  c.kind = "muon";
  c.weight_decay = 0.25;
  c.clip_grad_norm = 0;
  return c;
}

struct Model {
  explicit Model(const LmConfig& c = test::tiny_moe_config(), DType t = DType::f64) : params(t) {
    Lm(c, params);
    params.allocate();
    initialize(params, 5);
    for (const Shard& s : params.trained_shards()) test::fill_normal(s.grad, uint64_t(s.id.index));
  }
  Shard shard(const std::string& name) const {
    return params.shards()[size_t(params.find(name).index)];
  }
  PlainStore params;
};

std::vector<double> values(const Tensor& t) {
  std::vector<double> v;
  for (int64_t i = 0; i < t.numel(); ++i) v.push_back(element(t, i));
  return v;
}

// O of the rows x columns values from u on, whatever their scale: plain loops in f64.
std::vector<double> newton_schulz(const double* u, int64_t rows, int64_t columns) {
  std::vector<double> x(u, u + rows * columns);
  double norm = 0;
  for (const double e : x) norm += e * e;
  for (double& e : x) e /= std::sqrt(norm);
  const auto times_gram = [&](const std::vector<double>& y) {  // x x^T y
    std::vector<double> z(x.size(), 0);
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < rows; ++j) {
        double gram = 0;
        for (int64_t k = 0; k < columns; ++k)
          gram += x[size_t(i * columns + k)] * x[size_t(j * columns + k)];
        for (int64_t k = 0; k < columns; ++k)
          z[size_t(i * columns + k)] += gram * y[size_t(j * columns + k)];
      }
    return z;
  };
  for (int step = 0; step < 5; ++step) {
    const std::vector<double> once = times_gram(x), twice = times_gram(once);
    for (size_t i = 0; i < x.size(); ++i)
      x[i] = 3.4445 * x[i] - 4.7750 * once[i] + 2.0315 * twice[i];
  }
  return x;
}

// Moonlight's rule: two dimensions, and neither embedding, head nor convolution.
TEST(MuonOptimizer, OwnsTheMatricesOfTheModel) {
  const Model model;
  std::map<std::string, bool> muon;
  for (const auto& moments : Optimizer(config(), model.params).moments())
    muon[moments.name] = !moments.v;
  for (const char* name :
       {"layers.0.kda.qkv_proj", "layers.0.kda.fgb_proj", "layers.0.kda.f_b_proj",
        "layers.0.kda.g_b_proj", "layers.0.kda.o_proj", "layers.3.mla.q_proj",
        "layers.3.mla.kv_a_proj_with_mqa", "layers.3.mla.kv_b_proj", "layers.3.mla.o_proj",
        "layers.0.ffn.gate_up_proj", "layers.0.ffn.down_proj", "layers.1.ffn.router",
        "layers.1.ffn.experts.gate_up_proj", "layers.1.ffn.experts.down_proj",
        "layers.1.ffn.shared_experts.gate_up_proj"})
    EXPECT_TRUE(muon.at(name)) << name;
  for (const char* name :
       {"embedding.weight", "head.weight", "head.norm", "layers.0.mixer_norm", "layers.0.ffn_norm",
        "layers.0.kda.qkv_conv", "layers.0.kda.A_log", "layers.0.kda.dt_bias",
        "layers.0.kda.o_norm", "layers.3.mla.kv_a_layernorm"})
    EXPECT_FALSE(muon.at(name)) << name;
  EXPECT_FALSE(muon.contains("layers.1.ffn.e_score_correction_bias"));
}

TEST(MuonOptimizer, AStepOfEveryParameterByHand) {
  const CpuContext ctx;
  const Model model, before;
  Optimizer optimizer(config(), model.params);
  std::map<std::string, Tensor> v;
  for (const auto& m : optimizer.moments()) v[m.name] = m.v;
  StepState state{.step = 1, .lr = 0.125f};
  optimizer.clip(ctx, &state);
  optimizer.step(ctx, &state);
  double worst = 0;
  for (const Shard& s : model.params.trained_shards()) {
    const ParamSpec& spec = model.params.spec(s.id);
    const Shard was = before.shard(spec.name);
    const std::vector<double> p = values(was.master), g = values(was.grad), got = values(s.master);
    const double decay = spec.weight_decay ? 0.25 : 0;
    std::vector<double> want;
    if (v.at(spec.name)) {  // AdamW
      for (size_t i = 0; i < p.size(); ++i)
        want.push_back(p[i] - 0.125 * (decay * p[i] + g[i] / (std::abs(g[i]) + 1e-8)));
    } else {
      const int64_t columns = spec.shape.back();
      std::vector<RowBlock> blocks = spec.row_blocks;
      if (blocks.empty()) blocks = {{"all", spec.shape[spec.shape.size() - 2]}};
      while (want.size() < p.size())  // experts
        for (const RowBlock& b : blocks) {
          const size_t at = want.size();
          const std::vector<double> o = newton_schulz(&g[at], b.rows, columns);
          const double scale = 0.2 * std::sqrt(double(std::max(b.rows, columns)));
          for (size_t i = 0; i < o.size(); ++i)
            want.push_back(p[at + i] - 0.125 * (decay * p[at + i] + scale * o[i]));
        }
    }
    ASSERT_EQ(want.size(), got.size());
    for (size_t i = 0; i < p.size(); ++i) worst = std::max(worst, std::abs(want[i] - got[i]));
    EXPECT_LT(worst, 1e-12) << spec.name;  // 485 eps, times what a sum adds
  }
  std::cout << "worst difference " << worst << "\n";
}

// A fused weight gives the bits of its matrices stored apart, over three steps.
TEST(MuonOptimizer, FusedEqualsSeparate) {
  const CpuContext ctx;
  const Model fused(test::tiny_moe_config(), DType::f32);
  Optimizer optimizer(config(), fused.params);
  PlainStore apart(DType::f32);
  const int group = apart.add_group("all");
  struct Piece {
    ParamId whole, own;
    int64_t begin;
  };
  std::vector<Piece> pieces;
  for (int i = 0; i < fused.params.size(); ++i) {
    const ParamSpec& spec = fused.params.spec({i});
    if (!spec.matrix || spec.row_blocks.empty()) continue;
    int64_t begin = 0;
    for (int64_t e = 0; e < (spec.shape.size() == 3 ? spec.shape[0] : 1); ++e)
      for (const RowBlock& b : spec.row_blocks) {
        const ParamId own = apart.add({.name = cat(spec.name, ".", b.name, ".", e),
                                       .shape = {b.rows, spec.shape.back()},
                                       .group = group,
                                       .matrix = true});
        pieces.push_back({{i}, own, begin});
        begin += b.rows * spec.shape.back();
      }
  }
  EXPECT_EQ(pieces.size(), 3u * 6 + 2 + 3u * 2 * (6 + 1));  // KDA, dense, experts and shared ones
  apart.allocate();
  const auto part = [&](const Piece& p, const Tensor& whole) {
    return whole.rows(p.begin, apart.spec(p.own).numel());
  };
  for (const Piece& p : pieces)
    copy(part(p, fused.params.shards()[size_t(p.whole.index)].master),
         apart.shards()[size_t(p.own.index)].master);
  Optimizer other(config(), apart);
  for (int64_t n = 1; n <= 3; ++n) {
    for (const Shard& s : fused.params.trained_shards())
      test::fill_normal(s.grad, uint64_t(100 * n + s.id.index));
    for (const Piece& p : pieces)
      copy(part(p, fused.params.shards()[size_t(p.whole.index)].grad),
           apart.shards()[size_t(p.own.index)].grad);
    const StepState state{.step = n, .lr = 0.01f};
    optimizer.step(ctx, &state);
    other.step(ctx, &state);
  }
  for (const Piece& p : pieces)
    EXPECT_EQ(values(part(p, fused.params.shards()[size_t(p.whole.index)].master)),
              values(apart.shards()[size_t(p.own.index)].master))
        << apart.spec(p.own).name;
}

TEST(MuonOptimizer, GroupsReachMatricesToo) {
  const CpuContext ctx;
  const Model plain, scaled;
  OptimConfig c = config();
  c.weight_decay = 0;
  Optimizer a(c, plain.params);
  c.groups = {{.match = "*.o_proj", .weight_decay = 0.5, .lr_scale = 0.25}};
  Optimizer b(c, scaled.params);
  const StepState state{.step = 1, .lr = 0.5f};
  const std::vector<double> p = values(plain.shard("layers.3.mla.o_proj").master);
  a.step(ctx, &state);
  b.step(ctx, &state);
  const std::vector<double> one = values(plain.shard("layers.3.mla.o_proj").master);
  const std::vector<double> quarter = values(scaled.shard("layers.3.mla.o_proj").master);
  for (size_t i = 0; i < p.size(); ++i)
    EXPECT_NEAR(quarter[i], p[i] + 0.25 * (one[i] - p[i]) - 0.125 * 0.5 * p[i], 1e-14);
  EXPECT_EQ(values(plain.shard("layers.3.mla.q_proj").master),
            values(scaled.shard("layers.3.mla.q_proj").master));
}

TEST(MuonOptimizer, OneNumberAnElement) {
  const Model model(test::tiny_moe_config(), DType::f32);
  Optimizer optimizer(config(), model.params);
  int64_t bytes = 0;
  for (const Shard& s : model.params.trained_shards())
    bytes += s.master.bytes() * (model.params.spec(s.id).matrix ? 1 : 2);
  EXPECT_EQ(optimizer.bytes(), bytes);
}

TEST(MuonOptimizer, TheTableNamesEveryTensorAndCountsCalls) {
  const Model model;
  const std::string table = Optimizer(config(), model.params).table();
  std::cout << table;
  for (const char* line :
       {"muon  layers.*.kda.qkv_proj                          [64, 24]    3 tensors     9 matrices"
        "       4608 elements  weight decay 0.25 lr x 1\n",
        "[6, 32, 24]    3 tensors    36 matrices      13824 elements",
        "[4]    3 tensors         12 elements  weight decay 0    lr x 1\n",
        "adamw embedding.weight                               [29, 24]    1 tensors"})
    EXPECT_NE(table.find(line), std::string::npos) << line;
  EXPECT_NE(table.find(" Newton-Schulz calls a step, each of 5 iterations\n"), std::string::npos);
  // 3 KDA layers of 3 + 3 + 1 + 1 + 1, an MLA layer of 4, a dense MLP of 3, 3 mixtures of 22.
  EXPECT_NE(table.find(": 100 Newton-Schulz"), std::string::npos);
}

// Muon that would silently be AdamW.
TEST(MuonOptimizer, AModelWithoutMatricesIsRefused) {
  PlainStore params(DType::f32);
  params.add({.name = "a", .shape = {4, 4}, .group = params.add_group("g")});
  params.allocate();
  test::expect_contains(test::error_of([&] { Optimizer(config(), params); }),
                        {"optim.kind is muon", "no matrix"});
}

TEST(MatrixRuns, WholeExpertsMayBeApartMatricesNot) {
  const ParamSpec spec{.name = "w",
                       .shape = {3, 5, 2},
                       .row_blocks = {{"a", 2}, {"b", 2}, {"c", 1}},
                       .matrix = true};
  const auto text = [](const std::vector<MatrixRun>& runs) {
    std::string t;
    for (const MatrixRun& r : runs)
      t += cat(r.begin, ": ", r.count, " of ", r.rows, " x ", r.columns, "; ");
    return t;
  };
  EXPECT_EQ(text(matrix_runs(spec, 0, 30)),
            "0: 2 of 2 x 2; 8: 1 of 1 x 2; 10: 2 of 2 x 2; 18: 1 of 1 x 2; 20: 2 of 2 x 2; "
            "28: 1 of 1 x 2; ");
  EXPECT_EQ(text(matrix_runs(spec, 14, 6)), "0: 1 of 2 x 2; 4: 1 of 1 x 2; ");
  EXPECT_EQ(text(matrix_runs(spec, 10, 0)), "");
  test::expect_contains(test::error_of([&] { matrix_runs(spec, 0, 7); }),
                        {"w: a matrix is elements 4 .. 8", "shard 0 .. 7"});
  test::expect_contains(test::error_of([&] { matrix_runs(spec, 2, 8); }), {"elements 0 .. 4"});
}

}  // namespace
}  // namespace sluice
