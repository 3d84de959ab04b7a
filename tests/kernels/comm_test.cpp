// tests/kernels/comm_test.cpp -- collectives of 1 to 5 ranks against sums written out, and
// failures.
#include "kernels/comm/comm.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "kernels/comm/local_comm.h"
#include "tests/support/comm_problem.h"
#include "tests/support/message.h"

namespace sluice {
namespace {

using test::check_collectives;
using test::view;

TEST(Comm, CollectivesOfOneToFiveRanks) {
  for (int ranks = 1; ranks <= 5; ++ranks) {
    LocalGroup group(ranks);
    EXPECT_EQ(group.size(), ranks);
    group.run(test::check_every_collective);
  }
}

TEST(Comm, NullCommIsAGroupOfOne) {
  NullComm comm;
  EXPECT_EQ(comm.size(), 1);
  test::check_every_collective(comm);
}

TEST(Comm, BytesOfAnyTypeAreGathered) {
  LocalGroup(3).run([](Comm& comm) {
    std::vector<uint8_t> local(5, uint8_t(comm.rank())), all(15);
    comm.all_gather(view(local), view(all));
    for (size_t i = 0; i < 15; ++i) ASSERT_EQ(all[i], i / 5);
  });
}

TEST(Comm, IntegerSumsWrap) {
  LocalGroup(2).run([](Comm& comm) {
    std::vector<int32_t> x = {INT32_MAX};
    comm.all_reduce_sum(view(x));
    ASSERT_EQ(x[0], -2);
  });
}

TEST(Comm, BarrierWaitsForAll) {
  std::atomic<int> before{0};
  LocalGroup(4).run([&](Comm& comm) {
    for (int round = 1; round <= 50; ++round) {
      ++before;
      comm.barrier();
      ASSERT_EQ(before.load(), 4 * round);
      comm.barrier();
    }
  });
}

// Tensors may be reused as soon as a call returns, by whichever rank is ahead.
TEST(Comm, ManyCallsInARowWithReusedTensors) {
  LocalGroup(3).run([](Comm& comm) {
    std::vector<int64_t> x(17), all(51);
    for (int64_t round = 0; round < 300; ++round) {
      for (auto& v : x) v = round * (comm.rank() + 1);
      comm.all_gather(view(x), view(all));
      comm.all_reduce_sum(view(x));
      for (size_t i = 0; i < 51; ++i) ASSERT_EQ(all[i], round * int64_t(i / 17 + 1));
      for (const auto v : x) ASSERT_EQ(v, 6 * round);
    }
  });
}

TEST(Comm, DifferentCallsAreNamed) {
  LocalGroup group(3);
  test::expect_contains(test::failure_of(group,
                                         [](Comm& comm) {
                                           std::vector<float> x(4);
                                           if (comm.rank() == 2)
                                             comm.barrier();
                                           else
                                             comm.all_reduce_sum(view(x));
                                         }),
                        {"rank 0 calls all_reduce_sum of f32 [4]", "rank 2 calls barrier"});
  test::expect_contains(
      test::failure_of(group,
                       [](Comm& comm) {
                         std::vector<float> x(comm.rank() == 1 ? 5 : 4);
                         comm.all_reduce_sum(view(x));
                       }),
      {"rank 0 calls all_reduce_sum of f32 [4]", "rank 1 calls all_reduce_sum of f32 [5]"});
  test::expect_contains(test::failure_of(group,
                                         [](Comm& comm) {
                                           std::vector<float> x(4);
                                           comm.broadcast(view(x), comm.rank() == 1 ? 2 : 0);
                                         }),
                        {"rank 0 calls broadcast of f32 [4] on cpu from rank 0", "from rank 2"});
  group.run([](Comm& comm) { check_collectives<float>(comm, 3); });  // usable again
}

TEST(Comm, AThrowingRankReleasesTheOthers) {
  LocalGroup group(4);
  std::atomic<int> released{0};
  const std::string message = test::failure_of(group, [&](Comm& comm) {
    if (comm.rank() == 2) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));  // the others wait by now
      throw std::runtime_error("disk on fire");
    }
    try {
      comm.barrier();
    } catch (const Error& e) {
      test::expect_contains(e.what(), {"barrier", "rank 2 failed: disk on fire"});
      ++released;
    }
    EXPECT_THROW(comm.barrier(), Error);  // and it stays so
  });
  EXPECT_EQ(message, "disk on fire");
  EXPECT_EQ(released, 3);
  group.run([](Comm& comm) { comm.barrier(); });
}

TEST(Comm, AReturningRankReleasesTheOthers) {
  LocalGroup group(3);
  test::expect_contains(test::failure_of(group,
                                         [](Comm& comm) {
                                           if (comm.rank() != 1) comm.barrier();
                                         }),
                        {"rank 1 returned while rank", "waits in barrier"});
}

TEST(Comm, ContractViolations) {
  LocalGroup group(2);
  std::vector<float> a(6), b(4);
  test::expect_contains(
      test::failure_of(group, [&](Comm& comm) { comm.all_gather(view(b), view(a)); }),
      {"all_gather", "f32 [4]", "f32 [6]", "2 times"});
  test::expect_contains(test::failure_of(group, [&](Comm& comm) { comm.broadcast(view(a), 2); }),
                        {"broadcast from rank 2 of 2"});
  test::expect_contains(test::failure_of(group, [&](Comm& comm) { comm.all_reduce_sum(Tensor{}); }),
                        {"t is"});
  std::vector<uint8_t> bytes(4);
  test::expect_contains(
      test::failure_of(group, [&](Comm& comm) { comm.all_reduce_sum(view(bytes)); }),
      {"all_reduce_sum of u8"});
  test::expect_contains(test::failure_of(group,
                                         [&](Comm& comm) {
                                           std::vector<float> all(6);
                                           comm.all_gather(view(all).rows(1, 3), view(all));
                                         }),
                        {"local overlaps all at byte 4"});
  std::vector<float> square(16);
  const Tensor strided = make_tensor(square.data(), DType::f32, Device::cpu, {4, 4}).columns(0, 3);
  test::expect_contains(test::failure_of(group, [&](Comm& comm) { comm.all_reduce_sum(strided); }),
                        {"dense"});
  EXPECT_THROW(LocalGroup(0), Error);
}

}  // namespace
}  // namespace sluice
