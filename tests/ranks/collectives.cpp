// tests/ranks/collectives.cpp -- the program of tests that mpirun starts: every collective on real
// processes against its definition, which the ranks that are threads are held to as well; and calls
// that do not fit together.
#include <gtest/gtest.h>

#include "kernels/comm/comm_queue.h"
#include "kernels/comm/mpi_comm.h"
#include "tests/support/comm_problem.h"
#include "tests/support/message.h"

namespace sluice {
namespace {

Comm* world = nullptr;
using test::view;

TEST(MpiRanks, EveryCollective) {
  test::check_every_collective(*world);
}

TEST(MpiRanks, LargeTensorsAreReducedByParts) {
  test::check_all_collectives(*world, 70001);
}

TEST(MpiRanks, DifferentCallsAreNamedOnEveryRank) {
  const bool last = world->rank() == world->size() - 1;
  std::vector<float> x(4), five(5);
  test::expect_contains(test::error_of([&] {
                          if (last)
                            world->barrier({.what = "step 3"});
                          else
                            world->all_reduce_sum(view(x), {.what = "loss"});
                        }),
                        {"rank 0 calls all_reduce_sum 'loss' of f32 [4]",
                         cat("rank ", world->size() - 1, " calls barrier 'step 3'")});
  test::expect_contains(test::error_of([&] { world->all_reduce_sum(last ? view(five) : view(x)); }),
                        {"rank 0 calls all_reduce_sum of f32 [4]", "of f32 [5]"});
  test::expect_contains(test::error_of([&] { world->broadcast(view(x), last ? 1 : 0); }),
                        {"from rank 0", "from rank 1"});
  test::expect_contains(test::error_of([&] { world->barrier({.what = last ? "a" : "b"}); }),
                        {"rank 0 calls barrier 'b'", "calls barrier 'a'"});
  world->barrier();  // and it goes on
}

TEST(MpiRanks, CountsOfAnAllToAllAreCompared) {
  const auto N = size_t(world->size());
  std::vector<float> x(4 * N), y(4 * N);
  const std::vector<int64_t> send(N, 2);
  std::vector<int64_t> recv(N, 2);
  if (world->rank() == 1) recv[0] = 3;
  test::expect_contains(test::error_of([&] {
                          world->all_to_all_v(view(x), {send, {}}, view(y), {recv, {}});
                        }),
                        {"rank 0 sends 2 elements to rank 1, which receives 3"});
}

TEST(MpiRanks, AQueueRunsBesideTheCallersCollectives) {
  const auto own = world->split(0, world->rank(), {.what = "queue"});
  std::vector<int64_t> x = {1}, y = {1};
  CommQueue queue(*own);
  const Context cpu;
  CommQueue::Ticket last = 0;
  for (int i = 0; i < 10; ++i) {
    last = queue.submit("x", cpu, [&](const CommUse& use) { own->all_reduce_sum(view(x), use); });
    world->all_reduce_sum(view(y));
  }
  queue.wait(last, cpu);
  EXPECT_EQ(x, y);
}

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  const auto comm = sluice::mpi_world();
  sluice::world = comm.get();
  return RUN_ALL_TESTS();
}
