// tests/optim/sharded_muon_test.cpp -- Muon over ranks: the bits of one rank, however the matrices
// are cut; who owns what; what travels and what memory it takes.
#include <gtest/gtest.h>

#include <map>
#include <mutex>
#include <numeric>

#include "kernels/comm/local_comm.h"
#include "optim/optimizer.h"
#include "optim/table.h"
#include "tests/support/cpu_context.h"
#include "tests/support/cut_store.h"
#include "tests/support/message.h"
#include "tests/support/tiny_model.h"

namespace sluice {
namespace {

using test::CutStore;

OptimConfig config(const std::string& state_dtype = "f32") {
  OptimConfig c;
  c.state_dtype = state_dtype;
  c.kind = "muon";
  c.weight_decay = 0.25;
  c.groups = {{.match = "*.o_proj", .weight_decay = 0.5, .lr_scale = 0.25}};
  return c;
}

using Values = std::map<std::string, std::vector<double>>;

// Elements of step n, whoever has them.
void fill_gradients(const ParamStore& params, int64_t n) {
  for (const Shard& s : params.trained_shards())
    for (int64_t i = 0; i < s.grad.dim(0); ++i)
      test::set_element(s.grad, i,
                        random_normal(uint64_t(100 * n + s.id.index), uint64_t(s.begin + i)));
}

void add(const ParamStore& params, const Optimizer& optimizer, Values& values) {
  const std::vector<Optimizer::Moments> moments = optimizer.moments();
  const std::vector<Shard> shards = params.trained_shards();
  for (size_t k = 0; k < shards.size(); ++k) {
    const Shard& s = shards[k];
    const ParamSpec& spec = params.spec(s.id);
    std::vector<double>&p = values[spec.name], &m = values[spec.name + " momentum"];
    p.resize(size_t(spec.numel()), -77), m.resize(size_t(spec.numel()), -77);
    for (int64_t i = 0; i < s.master.dim(0); ++i) {
      p[size_t(s.begin + i)] = test::element(s.master, i);
      m[size_t(s.begin + i)] = test::element(moments[k].m, i);
    }
  }
}

constexpr int kSteps = 3;

void steps(const Context& ctx, ParamStore& params, Optimizer& optimizer, Comm* comm) {
  for (int64_t n = 1; n <= kSteps; ++n) {
    fill_gradients(params, n);
    StepState state{.step = n, .lr = 0.01F};
    state.grad_scale = 0.5F;  // clipping's own sum is in the order of the shards
    state.skip = n == 2;
    optimizer.step(ctx, &state);
  }
  if (comm) comm->barrier();
}

Values one_rank(DType t, const std::string& state_dtype) {
  const test::CpuContext ctx;
  PlainStore params(t);
  const Lm lm(test::tiny_moe_config(), params);
  params.allocate();
  initialize(params, 5);
  Optimizer optimizer(config(state_dtype), params);
  steps(ctx, params, optimizer, nullptr);
  Values v;
  add(params, optimizer, v);
  return v;
}

struct Layout {
  const char* name;
  std::vector<double> cuts;  // ranks + 1
  int expert_ranks = 1;
  std::vector<double> expert_cuts{};  // of the group of a rank's experts

  int ranks() const { return int(cuts.size()) - 1; }
};

const Layout kLayouts[] = {
    {"two_even", {0, 0.5, 1}, 1, {0, 0.5, 1}},
    {"two_uneven", {0, 0.137, 1}, 1, {0, 0.9, 1}},
    {"three_even", {0, 1.0 / 3, 2.0 / 3, 1}, 1, {0, 1.0 / 3, 2.0 / 3, 1}},
    {"three_one_has_nothing", {0, 0.61, 0.61, 1}, 1, {0, 0, 0.21, 1}},
    {"four_uneven", {0, 0.05, 0.45, 0.93, 1}, 1, {0, 0.3, 0.31, 0.8, 1}},
    {"four_with_two_expert_ranks", {0, 0.25, 0.5, 0.75, 1}, 2, {0, 0.37, 1}},
    {"three_expert_ranks_alone", {0, 0.2, 0.6, 1}, 3, {0, 1}},
};

// Expert ranks are neighbours: ranks with the same rank % expert_ranks have the same experts.
CutStore::Cut cut_of(const Layout& l, int rank) {
  return {l.cuts,        rank, l.expert_cuts, rank / l.expert_ranks, rank % l.expert_ranks,
          l.expert_ranks};
}

class ShardedMuon : public testing::TestWithParam<Layout> {};
INSTANTIATE_TEST_SUITE_P(Layouts, ShardedMuon, testing::ValuesIn(kLayouts),
                         [](const auto& p) { return p.param.name; });

// Bit for bit: what travels is what the products take, and a product's bits do not depend on who
// calls it; nor do those that round bf16 states, of AdamW's parameters too.
TEST_P(ShardedMuon, IsMuonOnOneRank) {
  const Layout& layout = GetParam();
  for (const auto& [t, states] :
       {std::pair{DType::f64, "f32"}, {DType::f32, "f32"}, {DType::f32, "bf16"}}) {
    const Values want = one_rank(t, states);
    Values got;
    std::mutex mutex;
    LocalGroup(layout.ranks()).run([&](Comm& comm) {
      const test::CpuContext ctx(Mode::run, 1);
      CutStore params(t, cut_of(layout, comm.rank()));
      const Lm lm(test::tiny_moe_config(), params);
      params.allocate();
      initialize(params, 5);
      const auto expert_comm = comm.split(comm.rank() % layout.expert_ranks, comm.rank());
      Optimizer optimizer(
          config(states), params,
          {shard_group(comm, params, false), shard_group(*expert_comm, params, true)});
      steps(ctx, params, optimizer, &comm);
      const std::lock_guard lock(mutex);
      add(params, optimizer, got);
    });
    ASSERT_EQ(got.size(), want.size());
    for (const auto& [name, v] : want) EXPECT_EQ(got[name], v) << name;
  }
}

TEST_P(ShardedMuon, ScratchIsPlannedAndNothingElse) {
  const Layout& layout = GetParam();
  LocalGroup(layout.ranks()).run([&](Comm& comm) {
    CutStore params(DType::f32, cut_of(layout, comm.rank()));
    const Lm lm(test::tiny_moe_config(), params);
    params.allocate();
    const auto expert_comm = comm.split(comm.rank() % layout.expert_ranks, comm.rank());
    ShardGroups groups{shard_group(comm, params, false), shard_group(*expert_comm, params, true)};
    ShardGroups planned = groups;
    planned.weights.comm = planned.experts.comm = nullptr;
    Arena plan = Arena::plan(Device::cpu);
    Optimizer(config(), params, planned).step({.mode = Mode::plan, .arena = &plan}, nullptr);
    Arena arena(Device::cpu, plan.peak());
    const StepState state{.step = 1, .lr = 0.01F};
    Optimizer(config(), params, groups).step({.arena = &arena}, &state);
    EXPECT_EQ(arena.peak(), plan.peak());
    EXPECT_EQ(arena.used(), 0);
  });
}

// A store that has sizes alone.
ShardGroup even_group(const ParamStore& params, int ranks, int rank) {
  ShardGroup group{.comm = nullptr, .rank = rank};
  for (int r = 0; r < ranks; ++r) {
    auto& ranges = group.ranges.emplace_back();
    for (int i = 0; i < params.size(); ++i) {
      const int64_t n = params.spec({i}).numel();
      ranges.push_back({n * r / ranks, n * (r + 1) / ranks});
    }
  }
  return group;
}

struct Planned {
  explicit Planned(const LmConfig& c = test::tiny_moe_config()) : params(DType::f32) {
    Lm(c, params);
    params.plan();
    for (int i = 0; i < params.size(); ++i)
      if (params.spec({i}).matrix)
        for (const Matrix& m : matrices_of(params.spec({i}), {i})) matrices.push_back(m);
  }
  PlainStore params;
  std::vector<Matrix> matrices;
};

// The bound of the rule, and that all ranks' rounds fit each other.
TEST(MuonPlan, IsBalancedAndTheRanksAgree) {
  const Planned model;
  for (const int ranks : {2, 3, 8, 31}) {
    std::vector<MuonPlan> plans;
    for (int r = 0; r < ranks; ++r)
      plans.push_back(
          plan_muon(model.matrices, even_group(model.params, ranks, r), model.params, 2000));
    const std::vector<int64_t>& costs = plans[0].costs;
    int64_t total = 0, largest = 0;
    for (const Matrix& m : model.matrices) total += m.cost(), largest = std::max(largest, m.cost());
    EXPECT_EQ(std::accumulate(costs.begin(), costs.end(), int64_t(0)), total);
    EXPECT_LE(*std::max_element(costs.begin(), costs.end()), total / ranks + largest);
    std::cout << ranks << " ranks: largest cost over mean "
              << double(*std::max_element(costs.begin(), costs.end())) * ranks / double(total)
              << ", " << plans[0].rounds.size() << " rounds\n";
    for (const MuonPlan& p : plans) {
      EXPECT_EQ(p.costs, costs);
      ASSERT_EQ(p.rounds.size(), plans[0].rounds.size());
    }
    for (size_t round = 0; round < plans[0].rounds.size(); ++round)
      for (int a = 0; a < ranks; ++a)
        for (int b = 0; b < ranks; ++b)
          EXPECT_EQ(plans[size_t(a)].rounds[round].gives[size_t(b)],
                    plans[size_t(b)].rounds[round].gets[size_t(a)]);
  }
}

// Nothing travels for what lies on one rank, if that is balanced.
TEST(MuonPlan, AMatrixThatIsWholeOnOneRankStays) {
  PlainStore params(DType::f32);
  params.add({.name = "experts",
              .shape = {8, 6, 4},
              .group = params.add_group("g"),
              .expert = true,
              .matrix = true});
  const std::vector<Matrix> matrices = matrices_of(params.spec({0}), {0});
  for (int rank = 0; rank < 4; ++rank) {
    const MuonPlan plan = plan_muon(matrices, even_group(params, 4, rank), params);
    ASSERT_EQ(plan.rounds.size(), 1U);
    for (int r = 0; r < 4; ++r) EXPECT_EQ(plan.rounds[0].gives[size_t(r)], r == rank ? 2 * 24 : 0);
    EXPECT_EQ(plan.rounds[0].runs.size(), 1U);
    EXPECT_EQ(plan.rounds[0].moves.size(), 1U);
  }
}

TEST(MuonPlan, ARoundIsBounded) {
  const Planned model;
  const MuonPlan one = plan_muon(model.matrices, even_group(model.params, 2, 0), model.params),
                 many =
                     plan_muon(model.matrices, even_group(model.params, 2, 0), model.params, 2000);
  EXPECT_EQ(one.rounds.size(), 1U);
  EXPECT_GT(many.rounds.size(), 10U);
  int64_t got = 0;
  for (const MuonRound& r : many.rounds) {
    EXPECT_LE(r.got, 2000);
    got += r.got;
  }
  EXPECT_EQ(got, one.rounds[0].got);
}

TEST(MuonPlan, AMatrixThatNobodyHasWholeIsAnError) {
  const Planned model;
  ShardGroup group = even_group(model.params, 3, 0);
  group.ranges.pop_back();
  test::expect_contains(test::error_of([&] { plan_muon(model.matrices, group, model.params); }),
                        {"layers.0.kda.qkv_proj", "the ranks have"});
}

TEST(MuonPlan, TheTableNamesTheRanks) {
  const Planned model;
  const MuonPlan plan = plan_muon(model.matrices, even_group(model.params, 3, 0), model.params);
  OptimConfig c = config();
  c.groups.clear();
  const std::string table = settings_table(c, model.params, {plan});
  std::cout << table;
  std::string owners;  // of one tensor, from the plan itself
  for (const OwnedMatrix& m : plan.matrices)
    if (model.params.spec({m.is.param}).name == "layers.3.mla.q_proj") owners += cat(" ", m.owner);
  const size_t line = table.find("layers.*.mla.q_proj");
  ASSERT_NE(line, std::string::npos);
  const std::string of_q = table.substr(line, table.find('\n', line) - line);
  EXPECT_NE(of_q.find("lr x 1  ranks" + owners), std::string::npos) << of_q;
  EXPECT_NE(table.find("muon  over 3 ranks: 100 matrices in 1 rounds, largest cost over mean"),
            std::string::npos);
}

}  // namespace
}  // namespace sluice
