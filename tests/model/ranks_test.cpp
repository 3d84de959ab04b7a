// tests/model/ranks_test.cpp -- the contracts of a sharded run: two ranks as threads over a store
// that gathers each block into one of two buffers and poisons it on release.
#include <gtest/gtest.h>

#include <cstring>
#include <iostream>
#include <map>
#include <mutex>

#include "kernels/comm/local_comm.h"
#include "model/autograd/step_stats.h"
#include "optim/expert_bias.h"
#include "optim/qk_clip.h"
#include "tests/support/cpu_context.h"
#include "tests/support/tiny_model.h"

namespace sluice {
namespace {

// Every parameter is cut into equal parts (the last one padded). acquire() gathers a group into the
// buffer of its parity; release() after backward reduces its gradients into the shard, rank by rank
// in order, and both fill what they leave with NaN: memory kept across a release shows.
class GatheringStore : public ParamStore {
 public:
  explicit GatheringStore(Comm& comm) : comm_(comm) {}

  void allocate() override {
    int64_t largest = 0, owned = 0;
    std::vector<int64_t> sizes(size_t(groups()), 0);
    for (int i = 0; i < size(); ++i) {
      at_.push_back(sizes[size_t(spec({i}).group)]);
      sizes[size_t(spec({i}).group)] += comm_.size() * part(i);
      owned += part(i);
    }
    for (const int64_t s : sizes) largest = std::max(largest, s);
    for (int b = 0; b < 2; ++b) {
      values_[b] = Buffer(DType::f64, {largest});
      grads_[b] = Buffer(DType::f64, {largest});
      poison(values_[b]);
      poison(grads_[b]);
    }
    master_ = Buffer(DType::f64, {owned});
    sum_ = Buffer(DType::f64, {owned});
    int64_t begin = 0;
    for (int i = 0; i < size(); ++i) {
      const int64_t first = comm_.rank() * part(i);
      const int64_t n = std::max<int64_t>(0, std::min(part(i), spec({i}).numel() - first));
      shards_.push_back({{i}, first, master_.view().rows(begin, n), sum_.view().rows(begin, n)});
      starts_.push_back(begin);
      begin += part(i);
    }
    written_.assign(size_t(size()), false);
    reduced_.assign(size_t(size()), false);
  }

  void acquire(int group, Pass) override {
    holder_[group % 2] = group;
    for_group(group, [&](int i) {
      Buffer all(DType::f64, {comm_.size() * part(i)});
      comm_.all_gather(master_.view().rows(starts_[size_t(i)], part(i)), all.view());
      copy(all.view(), values_[group % 2].view().rows(at_[size_t(i)], all.view().numel()));
      written_[size_t(i)] = false;
    });
  }
  void release(int group, Pass pass) override {
    if (pass == Pass::backward)
      for_group(group, [&](int i) {
        const Tensor all = grads_[group % 2].view().rows(at_[size_t(i)], comm_.size() * part(i));
        for (int64_t e = written_[size_t(i)] ? spec({i}).numel() : 0; e < all.numel(); ++e)
          all.as<double>()[e] = 0;  // padding, or a gradient that nothing wrote
        if (spec({i}).rule != UpdateRule::gradient) return;
        Buffer mine(DType::f64, {part(i)});
        comm_.reduce_scatter(all, mine.view());
        const Tensor to = sum_.view().rows(starts_[size_t(i)], part(i));
        for (int64_t e = 0; e < part(i); ++e)
          to.as<double>()[e] =
              mine.view().as<double>()[e] + (reduced_[size_t(i)] ? to.as<double>()[e] : 0);
        reduced_[size_t(i)] = true;
      });
    poison(values_[group % 2]);
    poison(grads_[group % 2]);
    holder_[group % 2] = -1;
  }
  Tensor value(ParamId id) override { return whole(values_, id); }
  Grad grad(ParamId id) override {
    const bool add = written_[size_t(id.index)];
    written_[size_t(id.index)] = true;
    return {whole(grads_, id), add};
  }
  void start_step() override { reduced_.assign(reduced_.size(), false); }
  void finish_gradients(const Context& = {}) override {}
  const std::vector<Shard>& shards() const override { return shards_; }

 private:
  int64_t part(int i) const { return (spec({i}).numel() + comm_.size() - 1) / comm_.size(); }
  template <class Body>
  void for_group(int group, Body body) {
    for (int i = 0; i < size(); ++i)
      if (spec({i}).group == group) body(i);
  }
  Tensor whole(const Buffer (&buffers)[2], ParamId id) {
    const ParamSpec& s = spec(id);
    SLUICE_CHECK(holder_[s.group % 2] == s.group, s.name, " is used while its buffer holds group ",
                 holder_[s.group % 2]);
    return with_shape(buffers[s.group % 2].view().rows(at_[size_t(id.index)], s.numel()), s.shape);
  }
  static void poison(Buffer& b) { std::memset(b.view().data, 0xff, size_t(b.view().bytes())); }

  Comm& comm_;
  Buffer values_[2], grads_[2], master_, sum_;
  int holder_[2] = {-1, -1};
  std::vector<int64_t> at_, starts_;
  std::vector<Shard> shards_;
  std::vector<bool> written_, reduced_;
};

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

void largest_over_ranks(Comm& comm, const Tensor& t) {
  const Buffer all(t.dtype, {comm.size() * t.numel()});
  comm.all_gather(t, all.view());
  for (int64_t i = 0; i < all.view().numel(); ++i) {
    float& top = t.as<float>()[i % t.numel()];
    top = std::max(top, all.view().as<float>()[i]);
  }
}

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
    GatheringStore params(comm);
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
    if (stats.expert_counts()) comm.all_reduce_sum(stats.expert_counts());
    largest_over_ranks(comm, stats.max_logits());
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
