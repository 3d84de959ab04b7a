// tests/trainer/sharded_store_test.cpp -- a store over a mesh, by itself: who owns which element,
// what a block sees, what becomes of its gradients, and what all of it costs on the wire.
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <map>
#include <mutex>
#include <thread>

#include "kernels/comm/local_comm.h"
#include "kernels/tensor/rng.h"
#include "model/autograd/plain_store.h"
#include "tests/support/message.h"
#include "trainer/parallel/sharded_store.h"

namespace sluice {
namespace {

constexpr int kGroups = 5;  // embedding, three blocks, head

// Sizes that nothing divides, one parameter smaller than the number of ranks, experts, a frozen
// one.
void add_parameters(ParamStore& store) {
  const Init normal{Init::Kind::normal, 1, 0};
  const auto add = [&](int g, const char* name, std::vector<int64_t> shape, bool expert = false,
                       UpdateRule rule = UpdateRule::gradient) {
    store.add({.name = cat(store.group_name(g), ".", name),
               .shape = std::move(shape),
               .init = normal,
               .group = g,
               .expert = expert,
               .rule = rule});
  };
  for (const char* name : {"embedding", "layers.0", "layers.1", "layers.2", "head"})
    store.add_group(name);
  add(0, "weight", {37, 11});
  for (int g = 1; g <= 3; ++g) {
    add(g, "norm", {3});
    add(g, "proj", {40, 13});
    add(g, "experts", {4, 9, 7}, true);
    add(g, "bias", {4}, false, UpdateRule::expert_load);
    add(g, "out", {13, 31 + g});
  }
  add(4, "weight", {37, 11});
}

double initial(const ParamStore& store, int i, int64_t element) {
  return random_normal(rng_key(5, store.spec({i}).name), uint64_t(element));
}

// What rank `rank` finds in micro-batch `m`: of experts it has those of its own alone. Integers, so
// that every order of sums gives the same.
double gradient(int64_t rank, int m, int i, int64_t element) {
  return double((rank + 1) * (m + 2) * (1 + (element + i) % 7));
}

// Of experts a rank sees the ones that it computes with.
struct Seen {
  int64_t first, count;
};
Seen seen(const ParamStore& store, const Mesh& mesh, int i) {
  const ParamSpec& s = store.spec({i});
  if (!s.expert) return {0, s.numel()};
  const int64_t n = s.numel() / mesh.shape().expert;
  return {mesh.expert_rank() * n, n};
}

struct Case {
  const char* name;
  int ranks;
  ParallelConfig parallel;
  bool poison = false;
};

// Blocks forward and backward as a tape does it; the head's weight gradient in the forward pass.
class Passes {
 public:
  Passes(ShardedStore& store, const Mesh& mesh, double scale)
      : store_(store), mesh_(mesh), scale_(scale) {}

  void micro_batch(int m) {
    for (int g = 0; g < kGroups; ++g) {
      store_.acquire(g, Pass::forward);
      check_values(g);
      if (g == kGroups - 1) {
        store_.acquire(g, Pass::backward);
        write(g, m);
        store_.release(g, Pass::backward);
      }
      store_.release(g, Pass::forward);
    }
    for (int g = kGroups - 1; g >= 0; --g) {
      store_.acquire(g, Pass::backward);
      check_values(g);
      if (g != kGroups - 1) write(g, m);
      store_.release(g, Pass::backward);
    }
  }

 private:
  template <class Body>
  void each(int group, Body body) {
    for (int i = 0; i < store_.size(); ++i)
      if (store_.spec({i}).group == group) body(i);
  }
  void check_values(int group) {
    each(group, [&](int i) {
      const Tensor v = store_.value({i});
      const Seen s = seen(store_, mesh_, i);
      ASSERT_EQ(v.numel(), s.count) << store_.spec({i}).name;
      ASSERT_EQ(v.rank, int(store_.spec({i}).shape.size()));
      for (int64_t e = 0; e < s.count; ++e)
        ASSERT_EQ(v.as<double>()[e], scale_ * initial(store_, i, s.first + e))
            << store_.spec({i}).name << " element " << s.first + e << " on rank " << mesh_.rank();
    });
  }
  // Some gradients in two parts; in the second micro-batch layers.1 has none for its last weight.
  void write(int group, int m) {
    each(group, [&](int i) {
      if (store_.spec({i}).rule != UpdateRule::gradient || left_out(i, m)) return;
      const Seen s = seen(store_, mesh_, i);
      for (int part = 0; part < 2; ++part) {
        const Grad g = store_.grad({i});
        for (int64_t e = 0; e < s.count; ++e) {
          const double x = gradient(mesh_.rank(), m, i, s.first + e) / 2;
          double& to = g.t.as<double>()[e];
          to = g.add ? to + x : x;
        }
      }
    });
  }

 public:
  bool left_out(int i, int m) const { return store_.spec({i}).name == "layers.1.out" && m == 1; }

 private:
  ShardedStore& store_;
  const Mesh& mesh_;
  double scale_;
};

class Meshes : public ::testing::TestWithParam<Case> {};

INSTANTIATE_TEST_SUITE_P(
    All, Meshes,
    ::testing::Values(
        Case{"one", 1, {}}, Case{"fsdp_2", 2, {}}, Case{"fsdp_3_poisoned", 3, {}, true},
        Case{"fsdp_4_kept", 4, {.reshard_after_forward = false}},
        Case{"fsdp_4_unsharded", 4, {.unsharded_gradients = true}}, Case{"fsdp_8", 8, {}},
        Case{"ddp_2", 2, {.data_replicate = 2}}, Case{"hsdp_2x2", 4, {.data_replicate = 2}},
        Case{"hsdp_2x3_unsharded", 6, {.data_replicate = 2, .unsharded_gradients = true}},
        Case{"ep_2_of_4", 4, {.expert = 2}}, Case{"ep_4_of_4", 4, {.expert = 4}},
        Case{"ep_2_unsharded_kept",
             4,
             {.expert = 2, .reshard_after_forward = false, .unsharded_gradients = true}},
        Case{"hsdp_2_ep_2_poisoned", 8, {.data_replicate = 2, .expert = 2}, true},
        Case{"context_2", 4, {.context = 2}}),
    [](const auto& p) { return p.param.name; });

// Sum over micro-batches and over the ranks that see this element.
double want_gradient(const ParamStore& store, const Passes& passes, const MeshShape& shape, int i,
                     int64_t element, int micro_batches) {
  const ParamSpec& s = store.spec({i});
  double sum = 0;
  for (int64_t rank = 0; rank < shape.ranks(); ++rank) {
    const Seen of = seen(store, Mesh(shape, rank), i);
    if (element < of.first || element >= of.first + of.count) continue;
    for (int m = 0; m < micro_batches; ++m)
      if (!passes.left_out(i, m)) sum += gradient(rank, m, i, element);
  }
  return s.rule == UpdateRule::gradient ? sum : 0;
}

TEST_P(Meshes, BlocksSeeAllValuesAndShardsGetTheSumOfAllGradients) {
  const Case& c = GetParam();
  const MeshShape shape = mesh_shape(c.parallel, c.ranks);
  std::mutex mutex;
  std::map<std::pair<int, int64_t>, int> owners;  // of an element: in how many replicas
  LocalGroup(c.ranks).run([&](Comm& comm) {
    const Mesh mesh(shape, comm);
    ShardedStore store(mesh, {.dtype = DType::f64,
                              .reshard_after_forward = c.parallel.reshard_after_forward,
                              .unsharded_gradients = c.parallel.unsharded_gradients,
                              .poison = c.poison});
    add_parameters(store);
    store.allocate();
    initialize(store, 5);
    for (int step = 1; step <= 2; ++step) {
      Passes passes(store, mesh, step);
      store.start_step();
      for (int m = 0; m < 3; ++m) passes.micro_batch(m);
      store.finish_gradients();
      for (const Shard& s : store.shards())
        for (int64_t e = 0; s.grad && e < s.grad.dim(0); ++e)
          ASSERT_EQ(s.grad.as<double>()[e],
                    want_gradient(store, passes, shape, s.id.index, s.begin + e, 3))
              << store.spec(s.id).name << " element " << s.begin + e << " on rank " << comm.rank();
      for (const Shard& s : store.shards())  // an update: what was gathered is of the past
        for (int64_t e = 0; e < s.master.dim(0); ++e) s.master.as<double>()[e] *= 2;
    }
    const std::lock_guard lock(mutex);
    for (const Shard& s : store.shards())
      for (int64_t e = 0; e < s.master.dim(0); ++e) ++owners[{s.id.index, s.begin + e}];
  });
  PlainStore plain(DType::f64);
  add_parameters(plain);
  EXPECT_EQ(int64_t(owners.size()), plain.numel());
  for (const auto& [element, n] : owners) ASSERT_EQ(n, shape.replicate);
}

// Bytes that a rank gave to others, by what they are for.
int64_t sent(const CommCounts& counts, const std::string& group, CommOp op) {
  int64_t bytes = 0;
  for (const auto& [key, count] : counts)
    if (std::get<0>(key) == group && std::get<1>(key) == op) bytes += count.bytes;
  return bytes;
}

TEST_P(Meshes, WireVolumeIsTheFormula) {
  const Case& c = GetParam();
  if (c.poison) GTEST_SKIP() << "poisoned values are gathered again";
  const MeshShape shape = mesh_shape(c.parallel, c.ranks);
  constexpr int kMicroBatches = 3;
  LocalGroup(c.ranks).run([&](Comm& comm) {
    const Mesh mesh(shape, comm);
    ShardedStore store(mesh, {.dtype = DType::f64,
                              .reshard_after_forward = c.parallel.reshard_after_forward,
                              .unsharded_gradients = c.parallel.unsharded_gradients});
    add_parameters(store);
    store.allocate();
    initialize(store, 5);
    Passes passes(store, mesh, 1);
    for (int step = 0; step < 2; ++step) {  // the first one learns the order
      comm.ledger().clear();
      store.start_step();
      for (int m = 0; m < kMicroBatches; ++m) passes.micro_batch(m);
      store.finish_gradients();
    }
    // Of the two buffers one is the block's and one the next one's: at either end of a pass both
    // are used again.
    int64_t dense[2] = {0, 0}, expert[2] = {0, 0};  // gathered, reduced: parts that go to a peer
    for (const Segment& s : store.layout().segments) {
      if (!s.cut()) continue;
      const bool at_start = s.group < 2, at_end = s.group >= kGroups - 2;
      int64_t gathers = 0;
      for (int m = 0; m < kMicroBatches; ++m) gathers += (m == 0 || !at_start) + !at_end;
      if (!c.parallel.reshard_after_forward) gathers = 1;
      const int64_t reduces = c.parallel.unsharded_gradients ? 1 : kMicroBatches;
      int64_t* const sums = s.kind == Segment::Kind::expert ? expert : dense;
      sums[0] += gathers * s.part * 8 * (s.ranks - 1);
      sums[1] += reduces * s.part * 8 * (s.ranks - 1);
    }
    const CommCounts counts = comm.ledger().counts();
    EXPECT_EQ(sent(counts, "weights", CommOp::all_gather), dense[0]);
    EXPECT_EQ(sent(counts, "weights", CommOp::reduce_scatter), dense[1]);
    EXPECT_EQ(sent(counts, "experts", CommOp::all_gather), expert[0]);
    EXPECT_EQ(sent(counts, "experts", CommOp::reduce_scatter), expert[1]);
  });
}

// What a pass over kBlocks equal blocks takes, computing and talking for so long each.
constexpr int kBlocks = 6;
double seconds_of_a_step(double compute, double talk) {
  double best = 1e9;
  LocalGroup(2, {.latency_seconds = talk}).run([&](Comm& comm) {
    const Mesh mesh(mesh_shape({}, 2), comm);
    ShardedStore store(mesh, {.dtype = DType::f64});
    for (int g = 0; g < kBlocks; ++g) {
      store.add_group(cat("layers.", g));
      store.add({.name = cat("layers.", g, ".w"), .shape = {64, 64}, .group = g});
    }
    store.allocate();
    const auto work = [&] { std::this_thread::sleep_for(std::chrono::duration<double>(compute)); };
    for (int step = 0; step < 4; ++step) {  // the best of them: others work on this machine
      const auto begin = std::chrono::steady_clock::now();
      store.start_step();
      for (int g = 0; g < kBlocks; ++g) {
        store.acquire(g, Pass::forward);
        work();
        store.release(g, Pass::forward);
      }
      for (int g = kBlocks - 1; g >= 0; --g) {
        store.acquire(g, Pass::backward);
        work();
        (void)store.grad({g});
        store.release(g, Pass::backward);
      }
      store.finish_gradients();
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
      if (comm.rank() == 0 && step > 0) best = std::min(best, took.count());  // 0 learns the order
    }
  });
  return best;
}

// kBlocks gathers forward, all but two again backward, and kBlocks sums: they cost the step nothing
// if they take less than the blocks they run beside, or else they are what the step takes; what is
// left over are the first gather, the last sum, and in the second case the forward pass's rest.
TEST(ShardedStore, AStepTakesTheLongerOfComputeAndTalk) {
  constexpr double kShort = 0.015, kLong = 0.045;
  const double compute = 2 * kBlocks, talk = 3 * kBlocks - 2;
  const double hidden = seconds_of_a_step(kLong, kShort), bound = seconds_of_a_step(kShort, kLong);
  std::cout << "compute " << compute * kLong << " s, talk " << talk * kShort << " s: " << hidden
            << " s;  compute " << compute * kShort << " s, talk " << talk * kLong << " s: " << bound
            << " s\n";
  EXPECT_GT(hidden, compute * kLong);
  EXPECT_LT(hidden, compute * kLong + 0.6 * talk * kShort);
  EXPECT_GT(bound, talk * kLong);
  EXPECT_LT(bound, talk * kLong + 0.6 * compute * kShort);
}

TEST(ShardedStore, PlannedBytesAreThoseOfItsBuffers) {
  for (const Case& c : {Case{"", 3, {}}, Case{"", 4, {.expert = 2, .reshard_after_forward = false}},
                        Case{"", 4, {.unsharded_gradients = true}}}) {
    const MeshShape shape = mesh_shape(c.parallel, c.ranks);
    LocalGroup(c.ranks).run([&](Comm& comm) {
      const ShardedStore::Options options{.reshard_after_forward = c.parallel.reshard_after_forward,
                                          .unsharded_gradients = c.parallel.unsharded_gradients};
      const Mesh mesh(shape, comm), planned_mesh(shape, comm.rank());
      ShardedStore planned(planned_mesh, options);
      add_parameters(planned);
      planned.plan();
      ShardedStore store(mesh, options);
      add_parameters(store);
      comm.barrier();
      const int64_t before = allocated_bytes(Device::cpu);
      comm.barrier();
      store.allocate();
      comm.barrier();
      const int64_t each = planned.bytes().total();
      EXPECT_EQ(allocated_bytes(Device::cpu) - before, c.ranks * each);  // all alike
      comm.barrier();
      for (size_t i = 0; i < planned.shards().size(); ++i) {
        EXPECT_EQ(planned.shards()[i].begin, store.shards()[i].begin);
        EXPECT_EQ(planned.shards()[i].master.numel(), store.shards()[i].master.numel());
      }
    });
  }
}

TEST(ShardedStore, MeshesThatDoNotFitAreNamed) {
  test::expect_contains(test::error_of([] { mesh_shape({.data_replicate = 3}, 4); }),
                        {"data_replicate (3)", "4 ranks"});
  test::expect_contains(test::error_of([] { mesh_shape({.data_shard = "3"}, 4); }),
                        {"data_shard (3)", "is 3", "4 ranks"});
  test::expect_contains(test::error_of([] { mesh_shape({.expert = 3}, 4); }),
                        {"parallel.expert is 3", "(4)"});
  const Mesh mesh(mesh_shape({.expert = 8}, 8), 0);
  ShardedStore store(mesh, {});
  add_parameters(store);
  test::expect_contains(test::error_of([&] { store.plan(); }),
                        {"layers.0.experts", "4 experts", "(8)"});
}

TEST(ShardedStore, MoreGroupsAtOnceThanPlannedIsAnError) {
  LocalGroup(2).run([](Comm& comm) {
    const Mesh mesh(mesh_shape({}, 2), comm);
    ShardedStore store(mesh, {.dtype = DType::f64});
    add_parameters(store);
    store.allocate();
    store.acquire(0, Pass::forward);
    store.acquire(1, Pass::forward);
    test::expect_contains(test::error_of([&] { store.acquire(2, Pass::forward); }),
                          {"layers.1", "held at once than 1"});
  });
}

}  // namespace
}  // namespace sluice
