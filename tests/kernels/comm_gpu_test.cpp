// tests/kernels/comm_gpu_test.cpp -- collectives on tensors of a GPU. By itself: NCCL with one
// rank, and ranks as threads that share the GPU through the host. Started by mpirun with as many
// ranks as there are GPUs: NCCL between them, held to the definition by which the ranks that are
// threads are held as well, bit for bit.
#include <gtest/gtest.h>

#include <iostream>

#include "kernels/comm/comm_queue.h"
#include "kernels/comm/local_comm.h"
#include "kernels/comm/nccl_comm.h"
#include "kernels/comm/world.h"
#include "kernels/device/graph.h"
#include "kernels/device/stream.h"
#include "tests/support/comm_problem.h"

namespace sluice {
namespace {

std::unique_ptr<Comm> alone;
std::unique_ptr<World> several;

class Ranks : public ::testing::Environment {
  void SetUp() override {
    if (gpu_count() == 0) return;
    const RankEnvironment e = rank_environment();
    if (e.launcher == RankEnvironment::Launcher::none) {
      alone = nccl_world({});
    } else {
      several = std::make_unique<World>(e, WorldOptions{.device = Device::cuda});
      std::cerr << several->text() << ", GPU " << current_gpu() << "\n";
    }
  }
  void TearDown() override {
    alone.reset();
    several.reset();
  }
};
const auto* const ranks = ::testing::AddGlobalTestEnvironment(new Ranks);

Comm& world() {
  return several ? several->comm() : *alone;
}

class CommGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (gpu_count() == 0) GTEST_SKIP() << "NO GPU: nothing was tested";
  }
};

Buffer on_gpu(std::vector<float>& host) {
  Buffer b(DType::f32, {int64_t(host.size())}, Device::cuda);
  copy(test::view(host), b.view());
  return b;
}
std::vector<float> values(const Tensor& t) {
  std::vector<float> host(size_t(t.numel()));
  copy(t, test::view(host));
  return host;
}

// Device tensors, in place where that is allowed, on a stream; more than the scratch of the sums.
void check_device_tensors(Comm& comm, int64_t n) {
  const int N = comm.size(), r = comm.rank();
  const Stream stream;
  const CommUse use = {.what = "x", .stream = stream.get()};
  std::vector<float> all(size_t(n * N)), want(size_t(n * N));
  for (int64_t i = 0; i < n * N; ++i) {
    all[size_t(i)] = test::value<float>(r, i);
    want[size_t(i)] = test::ordered_sum<float>(N, i);
  }
  const Buffer x = on_gpu(all), y = on_gpu(all);
  const Tensor mine = x.view().rows(r * n, n);
  comm.reduce_scatter(x.view(), mine, use);  // in place
  comm.all_gather(mine, x.view(), use);      // likewise
  comm.all_reduce_sum(y.view(), use);
  stream.synchronize();
  ASSERT_EQ(values(x.view()), want);
  ASSERT_EQ(values(y.view()), want);
  comm.all_reduce_max(y.view(), use);
  comm.broadcast(x.view(), N - 1, use);
  stream.synchronize();
  ASSERT_EQ(values(y.view()), want);
  ASSERT_EQ(values(x.view()), want);
}

TEST_F(CommGpu, NcclKeepsTheContractOnTensorsOfTheHost) {
  ASSERT_TRUE(world().queues_on_stream());
  test::check_every_collective(world());
}

TEST_F(CommGpu, NcclSumsDeviceTensorsInTheOrderOfTheRanks) {
  for (const int64_t n : {1, 1000, 70001}) check_device_tensors(world(), n);
  const auto part = world().split(0, -world().rank(), {.what = "reversed"});
  check_device_tensors(*part, 333);
}

TEST_F(CommGpu, SumsLargerThanTheScratch) {
  Comm& comm = world();
  const int64_t n = (int64_t(40) << 20) / comm.size() + 3;  // 160 MB: three pieces
  const Stream stream;
  std::vector<float> all(size_t(n * comm.size()));
  for (size_t i = 0; i < all.size(); ++i)
    all[i] = float(comm.rank() + 1) * (float(i % 1021) + 0.1f);
  const Buffer x = on_gpu(all);
  const Buffer sum(DType::f32, {n}, Device::cuda);
  comm.reduce_scatter(x.view(), sum.view(), {.stream = stream.get()});
  stream.synchronize();
  const std::vector<float> got = values(sum.view());
  for (size_t i = 0; i < got.size(); ++i) {
    const size_t at = size_t(comm.rank() * n) + i;
    float want = float(at % 1021) + 0.1f;
    for (int p = 1; p < comm.size(); ++p) want += float(p + 1) * (float(at % 1021) + 0.1f);
    ASSERT_EQ(got[i], want) << i;
  }
}

TEST_F(CommGpu, RanksThatAreThreadsShareAGpuThroughTheHost) {
  if (world().size() > 1) GTEST_SKIP() << "each rank has its GPU";
  LocalGroup(3).run([](Comm& comm) {
    for (const int64_t n : {1, 1000, 5001}) check_device_tensors(comm, n);
  });
}

// A queue's stream waits for what was queued before, and the caller's for the queue; the host for
// nothing, so that all of it can be captured.
TEST_F(CommGpu, AQueueIsOrderedWithTheCallersStream) {
  Comm& comm = world();
  const int N = comm.size();
  const Stream stream;
  const Context ctx = {.device = Device::cuda, .stream = stream.get()};
  const auto own = comm.split(0, comm.rank(), {.what = "queue"});
  CommQueue queue(*own, Device::cuda);
  std::vector<float> ones(1 << 20, 1.0f);
  const Buffer x = on_gpu(ones);
  const auto doubled = [&] {
    for (int i = 0; i < 3; ++i) {
      const auto ticket =
          queue.submit("x", ctx, [&](const CommUse& use) { own->all_reduce_sum(x.view(), use); });
      queue.wait(ticket, ctx);
      comm.all_reduce_max(x.view(), {.what = "caller", .stream = stream.get()});
    }
  };
  float want = 1;
  const auto check = [&] {
    stream.synchronize();
    for (int i = 0; i < 3; ++i) want *= float(N);
    for (const float v : values(x.view())) ASSERT_EQ(v, want);
  };
  doubled();
  check();
  Graph graph;
  graph.capture(ctx, doubled);
  for (int i = 0; i < 2; ++i) {
    graph.launch(ctx);
    check();
  }
}

}  // namespace
}  // namespace sluice
