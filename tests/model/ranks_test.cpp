// tests/model/ranks_test.cpp -- the contracts of a sharded run: two ranks as threads over a store
// that gathers each block into one of two buffers and fills it with NaN on release, so that memory
// kept across a release shows.
#include <gtest/gtest.h>

#include <iostream>
#include <map>
#include <mutex>

#include "kernels/comm/local_comm.h"
#include "model/autograd/step_stats.h"
#include "optim/expert_bias.h"
#include "optim/qk_clip.h"
#include "tests/support/cpu_context.h"
#include "tests/support/tiny_model.h"
#include "trainer/parallel/sharded_store.h"

namespace sluice {
namespace {

constexpr int kMicroBatches = 2;

// Micro-batch m of rank r: documents of their own; the last one of rank 1 is empty.
std::vector<int64_t> lengths(int rank, int micro_batch) {
  if (rank == 1 && micro_batch == 1) return {0};
  return {5, 0, int64_t(30 + 40 * rank + 7 * micro_batch), 1};
}
test::Documents documents(int rank, int micro_batch) {
  return test::Documents(lengths(rank, micro_batch), uint64_t(10 * rank + micro_batch + 1));
}

using Gradients = std::map<std::string, std::vector<double>>;

// What a step makes of a model: gradients, the selection biases after their update, and the weights
// that QK-clip changes.
struct Step {
  Gradients gradients, biases, heads;
};

void add(const ParamStore& params, std::mutex& mutex, Step& into) {
  const std::lock_guard lock(mutex);
  for (const Shard& s : params.shards()) {
    const ParamSpec& spec = params.spec(s.id);
    const bool trained = spec.rule == UpdateRule::gradient;
    std::vector<double>& all = (trained ? into.gradients : into.biases)[spec.name];
    all.resize(size_t(spec.numel()));
    const Tensor& from = trained ? s.grad : s.master;
    for (int64_t e = 0; e < from.numel(); ++e) all[size_t(s.begin + e)] = from.as<double>()[e];
    if (spec.heads.count == 0) continue;
    into.heads[spec.name].resize(size_t(spec.numel()));
    for (int64_t e = 0; e < from.numel(); ++e)
      into.heads[spec.name][size_t(s.begin + e)] = s.master.as<double>()[e];
  }
}

constexpr double kThreshold = 1e-2;  // of logits: both heads of the one attention pass it

Step one_rank(const LmConfig& config) {
  const test::CpuContext cpu;
  PlainStore params(DType::f64);
  const Lm lm(config, params);
  params.allocate();
  initialize(params, 5);
  test::set_unequal_loads(params);
  StepStats stats(params);
  stats.start_step(cpu);
  params.start_step();
  for (int rank = 0; rank < 2; ++rank)
    for (int m = 0; m < kMicroBatches; ++m) {
      const test::Documents docs = documents(rank, m);
      Tape tape(cpu, params, Tape::Mode::train);
      tape.count_into(&stats);
      tape.backward(lm.loss(tape, docs.batch(), Recompute::none));
    }
  params.finish_gradients();
  const StepState state;
  update_expert_bias(cpu, params, stats, 0.25, &state);
  EXPECT_EQ(heads_over(stats.max_logits(), kThreshold), 2);
  qk_clip(cpu, params, stats, kThreshold, &state);
  Step step;
  std::mutex mutex;
  add(params, mutex, step);
  return step;
}

class Ranks : public ::testing::TestWithParam<test::Variant> {};

INSTANTIATE_TEST_SUITE_P(Ffns, Ranks,
                         ::testing::Values(test::Variant{"dense", test::tiny_config()},
                                           test::Variant{"moe", test::tiny_moe_config()}),
                         [](const auto& p) { return p.param.name; });

TEST_P(Ranks, TwoRanksWithRecomputationEqualOne) {
  const LmConfig config = GetParam().config;
  const Step want = one_rank(config);
  Step got;
  std::mutex mutex;
  LocalGroup(2).run([&](Comm& comm) {
    const test::CpuContext cpu(Mode::run, 1);
    const Mesh mesh(mesh_shape({}, comm.size()), comm);
    ShardedStore params(mesh, {.dtype = DType::f64, .poison = true});
    const Lm lm(config, params);
    params.allocate();
    initialize(params, 5);
    test::set_unequal_loads(params);
    StepStats stats(params);
    stats.start_step(cpu);
    params.start_step();
    for (int m = 0; m < kMicroBatches; ++m) {
      const test::Documents docs = documents(comm.rank(), m);
      Tape tape(cpu, params, Tape::Mode::train);
      tape.count_into(&stats);
      tape.backward(lm.loss(tape, docs.batch(), Recompute::block));
    }
    params.finish_gradients(cpu);
    if (stats.expert_counts()) comm.all_reduce_sum(stats.expert_counts());
    comm.all_reduce_max(stats.max_logits());
    const StepState state;
    update_expert_bias(cpu, params, stats, 0.25, &state);
    EXPECT_EQ(heads_over(stats.max_logits(), kThreshold), 2);
    qk_clip(cpu, params, stats, kThreshold, &state);
    add(params, mutex, got);
  });
  EXPECT_EQ(got.heads, want.heads);    // a maximum has no order either
  EXPECT_EQ(got.biases, want.biases);  // loads are integers, whatever the order of their sums
  double worst = 0;
  for (const auto& [name, g] : want.gradients) {
    double scale = 0;
    for (const double x : g) scale = std::max(scale, std::abs(x));
    for (size_t i = 0; i < g.size(); ++i) {
      const double e = std::abs(got.gradients[name].at(i) - g[i]) / std::max(scale, 1e-300);
      ASSERT_LT(e, 1e-12) << name << " element "
                          << i;  // the sum over micro-batches in another order
      worst = std::max(worst, e);
    }
  }
  std::cout << "worst relative difference " << worst << "\n";
}

// Planned bytes are the used ones, and every tensor is at the same address in every step.
TEST_P(Ranks, PlanIsExactAndAddressesRepeat) {
  for (const Recompute recompute : {Recompute::none, Recompute::selective, Recompute::block}) {
    PlainStore params(DType::f32);
    const Lm lm(GetParam().config, params);
    params.allocate();
    initialize(params, 5);
    test::set_unequal_loads(params);
    const test::Documents docs({40, 0, 90, 1});
    std::vector<void*> first, second;
    auto step = [&](Arena& arena, Mode mode, std::vector<void*>* addresses) {
      const Context ctx{.mode = mode, .arena = &arena};
      params.start_step();
      Tape tape(ctx, params, Tape::Mode::train);
      const Var loss = lm.loss(tape, docs.batch(), recompute);
      if (addresses) addresses->push_back(loss.value.data);
      tape.backward(loss);
      if (addresses) addresses->push_back(arena.address(arena.peak()));
    };
    Arena plan = Arena::plan(Device::cpu);
    step(plan, Mode::plan, nullptr);
    Arena arena(Device::cpu, plan.peak());  // exactly: a byte more would throw
    step(arena, Mode::run, &first);
    EXPECT_EQ(arena.peak(), plan.peak());
    step(arena, Mode::run, &second);
    EXPECT_EQ(first, second);
    EXPECT_EQ(arena.used(), 0);
    std::cout << "planned " << plan.peak() << " bytes, used " << arena.peak() << "\n";
  }
}

}  // namespace
}  // namespace sluice
