// tests/trainer/plan_test.cpp -- what `sluice plan --ranks N` says is what ranks take and count.
#include "trainer/plan/plan.h"

#include <gtest/gtest.h>

#include <chrono>
#include <mutex>

#include "configs/schema.h"
#include "kernels/comm/local_comm.h"
#include "tests/support/message.h"
#include "tests/support/tiny_run.h"
#include "trainer/loop/planned_groups.h"

namespace sluice {
namespace {

class Plan : public test::TinyRun {
 protected:
  Config config_of(const std::string& run, const ParallelConfig& parallel) const {
    Config c = config(run);
    c.model = test::tiny_moe_config();
    c.model.vocab_size.reset();
    c.train.batch_tokens = 96 * 9;  // with 4 ranks some have an empty micro-batch
    c.train.micro_batch_tokens = 96;
    c.optim.state_dtype = "bf16";
    c.optim.qk_clip_threshold = 100;
    c.checkpoint.every_steps = 1000;
    c.parallel = parallel;
    return c;
  }
};

using Sent = std::map<std::pair<std::string, CommOp>, CommCount>;

Sent sent(const CommCounts& counts) {
  Sent s;
  for (const auto& [key, count] : counts) {
    CommCount& to = s[{std::get<2>(key), std::get<1>(key)}];
    to.calls += count.calls;
    to.bytes += count.bytes;
  }
  return s;
}
Sent sent(const std::vector<WireRow>& rows) {
  Sent s;
  for (const WireRow& r : rows) {
    CommCount& to = s[{r.what, r.op}];
    to.calls += r.calls;
    to.bytes += r.bytes;
  }
  return s;
}

// By name and op: calls and bytes of a step, of every rank; and all memory.
TEST_F(Plan, IsWhatRanksTakeAndSend) {
  struct Case {
    const char* name;
    int ranks;
    ParallelConfig parallel;
  };
  const std::vector<Case> cases{{"two", 2, {}},
                                {"four", 4, {}},
                                {"hsdp", 4, {.data_replicate = 2}},
                                {"kept", 2, {.reshard_after_forward = false}},
                                {"whole", 2, {.unsharded_gradients = true}}};
  for (const Case& k : cases) {
    const Config c = config_of(k.name, k.parallel);
    ::testing::internal::CaptureStdout();
    LocalGroup(k.ranks).run([&](Comm& world) {
      const RunPlan plan = plan_run(c, k.ranks, {}, world.rank());
      Trainer t(c, Trainer::Folder::any, &world);
      for (int i = 0; i < 2; ++i) t.train_step();
      world.ledger().clear();
      t.train_step();
      const Sent got = sent(world.ledger().counts()), want = sent(plan.wire);
      for (const auto& [key, count] : want) {
        const auto it = got.find(key);
        const std::string label =
            cat(k.name, " rank ", world.rank(), " ", key.first, " ", sluice::name(key.second));
        ASSERT_NE(it, got.end()) << label;
        EXPECT_EQ(it->second.calls, count.calls) << label;
        EXPECT_EQ(it->second.bytes, count.bytes) << label;
      }
      for (const auto& [key, count] : got)
        EXPECT_TRUE(want.count(key) || count.bytes == 0)
            << k.name << ": not planned: " << key.first << " " << sluice::name(key.second) << ", "
            << count.bytes << " bytes";
      EXPECT_EQ(t.memory().total(), plan.memory.total()) << k.name;
      EXPECT_EQ(t.memory().moments, plan.memory.moments);
      EXPECT_EQ(t.memory().step, plan.memory.step);
      EXPECT_EQ(t.arena_peak(), plan.memory.step);
    });
    ::testing::internal::GetCapturedStdout();
  }
}

// Who has what is known without asking, and so is what Muon sends.
TEST_F(Plan, MuonIsPlannedAsItSends) {
  for (const ParallelConfig& parallel :
       {ParallelConfig{}, ParallelConfig{.expert = 2}, ParallelConfig{.data_replicate = 2}}) {
    Config c = config_of("muon", parallel);
    c.model.vocab_size = 64;
    c.optim.kind = "muon";
    LocalGroup(4).run([&](Comm& world) {
      const MeshShape shape = mesh_shape(parallel, 4);
      const Mesh mesh(shape, world), planned_mesh(shape, world.rank());
      const auto store = make_store(c.parallel, c.model, mesh, Device::cpu),
                 planned = make_store(c.parallel, c.model, planned_mesh, Device::cpu);
      const Lm lm(c.model, *store), planned_lm(c.model, *planned);
      store->allocate();
      planned->plan();
      const ShardGroups groups{shard_group(mesh.replica(), *store, false),
                               shard_group(mesh.expert_data(), *store, true)};
      const ShardGroups guess = planned_groups(*planned, planned_mesh, Device::cpu);
      for (const bool experts : {false, true}) {
        const ShardGroup &a = experts ? groups.experts : groups.weights,
                         &b = experts ? guess.experts : guess.weights;
        EXPECT_EQ(a.rank, b.rank);
        ASSERT_EQ(a.size(), b.size());
        for (int r = 0; r < a.size() && !a.ranges.empty(); ++r)
          for (int i = 0; i < store->size(); ++i) {
            const ElementRange x = a.ranges[size_t(r)][size_t(i)],
                               y = b.ranges[size_t(r)][size_t(i)];
            const ParamSpec& spec = store->spec({i});
            if (!spec.matrix || spec.expert != experts || (x.begin == x.end && y.begin == y.end))
              continue;
            EXPECT_EQ(x.begin, y.begin) << spec.name;
            EXPECT_EQ(x.end, y.end) << spec.name;
          }
      }
      Optimizer optimizer(c.optim, *store, groups);
      Arena arena(Device::cpu, 64 << 20);
      const StepState state{.step = 1, .lr = 0.01F};
      world.ledger().clear();
      optimizer.step({.arena = &arena}, &state);
      const ShardLayout layout(*planned, planned_mesh, DType::f32, DType::f32);
      const std::vector<WireRow> rows = wire_of_step({.params = *planned,
                                                      .layout = layout,
                                                      .groups = guess,
                                                      .mesh = planned_mesh,
                                                      .config = c,
                                                      .ranks_per_node = 8,
                                                      .micro_batches = 1,
                                                      .value = DType::f32});
      const Sent want = sent(rows);
      int64_t bytes = 0;
      for (const auto& [key, count] : sent(world.ledger().counts())) {
        if (key.second != CommOp::all_to_all_v) continue;
        ASSERT_TRUE(want.count(key)) << key.first;
        EXPECT_EQ(want.at(key).bytes, count.bytes) << key.first;
        EXPECT_EQ(want.at(key).calls, count.calls) << key.first;
        bytes += count.bytes;
      }
      EXPECT_GT(bytes, 0);
    });
  }
}

// Without a GPU, a shard, a tokenizer or the memory of one layer.
TEST_F(Plan, ThePublishedModelOnManyRanks) {
  const std::string source = SLUICE_SOURCE_DIR;
  const Config c = config::load<Config>(source + "/configs/kimi-linear-48b.yaml");
  const Figures figures = load_figures(source + "/configs/figures/h100.yaml", {});
  for (const int64_t ranks : {8, 64, 1024}) {
    const auto begin = std::chrono::steady_clock::now();
    const RunPlan plan = plan_run(c, ranks, figures);
    const double took =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    std::cout << ranks << " ranks: " << took << " s\n";
    EXPECT_LT(took, 60);
    EXPECT_NEAR(double(plan.parameters), 48e9, 2e9);
    EXPECT_NEAR(double(plan.active_parameters), 3e9, 0.6e9);
    EXPECT_NEAR(double(plan.memory.params.masters), 4.0 * double(plan.parameters) / double(ranks),
                0.03 * 4.0 * double(plan.parameters) / double(ranks) + 50e6);
    EXPECT_GT(plan.time.mfu, 0.01);
    EXPECT_LT(plan.time.mfu, 0.9);
  }
}

// A ring of N ranks in nodes of g: the shares of links by hand.
TEST(PlanWire, BytesGoWhereTheRanksAre) {
  const Mesh mesh({.replicate = 2, .shard = 16, .expert = 8, .context = 1}, 9);  // nodes of 8
  const GroupPlaces p = group_places(mesh, 8);
  EXPECT_EQ(p.world.ranks, 32);
  EXPECT_EQ(p.replica.ranks, 16);
  EXPECT_EQ(p.replica.in_node, 8);
  EXPECT_EQ(p.expert.ranks, 8);
  EXPECT_EQ(p.expert.in_node, 8);
  EXPECT_EQ(p.expert_data.ranks, 2);
  EXPECT_EQ(p.expert_data.in_node, 1);
  EXPECT_EQ(p.replicate.ranks, 2);
  EXPECT_EQ(p.replicate.in_node, 1);
  WireRow once, direct;
  once.bytes = direct.bytes = 1500;  // 100 to each of the 15 others
  place_bytes(once, p.replica, Route::once_a_node);
  EXPECT_EQ(once.inside, 1500);
  EXPECT_EQ(once.between, 100);  // 800 out of the node, of which this rank's link takes an eighth
  place_bytes(direct, p.replica, Route::rank_to_rank);
  EXPECT_EQ(direct.inside, 700);
  EXPECT_EQ(direct.between, 800);
  WireRow alone;
  place_bytes(alone, {.ranks = 1, .in_node = 1}, Route::rank_to_rank);
  EXPECT_EQ(alone.inside + alone.between, 0);
}

TEST(PlanFigures, AreAllThereOrRefused) {
  const std::string source = SLUICE_SOURCE_DIR;
  const std::string file = source + "/configs/figures/h100.yaml";
  EXPECT_EQ(load_figures(file, {"inside.bytes_per_second=1e11"}).inside.bytes_per_second, 1e11);
  test::expect_contains(test::error_of([&] { load_figures(file, {"compute.linear_flops=0"}); }),
                        {"linear_flops", "above 0"});
  test::expect_contains(test::error_of([&] { load_figures(file, {"nvlink=1"}); }), {"nvlink"});
}

}  // namespace
}  // namespace sluice
