// tests/trainer/sharded_store_test.cpp -- a store over a mesh, by itself: who owns which element,
// what a block sees, what becomes of its gradients, and what all of it costs on the wire.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <mutex>

#include "kernels/comm/local_comm.h"
#include "model/autograd/plain_store.h"
#include "tests/support/message.h"
#include "tests/trainer/sharded_store_case.h"

namespace sluice {
namespace {

using namespace test;

struct Case {
  const char* name;
  int ranks;
  ParallelConfig parallel;
  bool poison = false;
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
