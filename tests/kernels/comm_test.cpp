// tests/kernels/comm_test.cpp -- collectives of 1 to 5 ranks against sums written out, and
// failures.
#include "kernels/comm/comm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <numeric>
#include <thread>
#include <vector>

#include "kernels/comm/local_comm.h"
#include "kernels/tensor/rng.h"

namespace sluice {
namespace {

template <class T>
Tensor view(std::vector<T>& v) {
  return make_tensor(v.data(), dtype_of<T>(), Device::cpu, {int64_t(v.size())});
}

// Element i of rank r: sums of these differ in the last bits if the order of the ranks changes. The
// scales are powers of two: the product is exact, so a compiler that fuses it with the sum of
// ordered_sum() into one FMA changes no bit.
template <class T>
T value(int r, int64_t i) {
  const double x = random_normal(uint64_t(r + 1), uint64_t(i));
  if constexpr (std::is_integral_v<T>) return T(x * 1e6);
  return T(x * (r % 2 ? 8192.0 : 1.0 / 1024));
}

template <class T>
T ordered_sum(int ranks, int64_t i) {
  T s = value<T>(0, i);
  for (int r = 1; r < ranks; ++r) s += value<T>(r, i);
  return s;
}

// All collectives, on n elements a rank.
template <class T>
void check_collectives(Comm& comm, int64_t n) {
  const int N = comm.size(), r = comm.rank();
  const auto cell = [&](int64_t i) { return size_t(i); };

  std::vector<T> local(cell(n)), all(cell(n * N), T(99));
  for (int64_t i = 0; i < n; ++i) local[cell(i)] = value<T>(r, i);
  comm.all_gather(view(local), view(all));
  for (int p = 0; p < N; ++p)
    for (int64_t i = 0; i < n; ++i)
      ASSERT_EQ(all[cell(p * n + i)], value<T>(p, i)) << p << " " << i;

  for (int64_t i = 0; i < n * N; ++i) all[cell(i)] = value<T>(r, i);
  std::fill(local.begin(), local.end(), T(99));
  comm.reduce_scatter(view(all), view(local));
  for (int64_t i = 0; i < n; ++i) ASSERT_EQ(local[cell(i)], ordered_sum<T>(N, r * n + i)) << i;

  // In place: this rank's part of `all` gets the sum, the others stay.
  Tensor part = view(all).rows(r * n, n);
  comm.reduce_scatter(view(all), part);
  for (int64_t i = 0; i < n * N; ++i)
    ASSERT_EQ(all[cell(i)],
              i / std::max<int64_t>(n, 1) == r ? ordered_sum<T>(N, i) : value<T>(r, i));
  comm.all_gather(part, view(all));
  for (int64_t i = 0; i < n * N; ++i) ASSERT_EQ(all[cell(i)], ordered_sum<T>(N, i));

  for (int64_t i = 0; i < n; ++i) local[cell(i)] = value<T>(r, i);
  comm.all_reduce_sum(view(local));
  for (int64_t i = 0; i < n; ++i) ASSERT_EQ(local[cell(i)], ordered_sum<T>(N, i));

  for (int root = 0; root < N; ++root) {
    for (int64_t i = 0; i < n; ++i) local[cell(i)] = value<T>(r, i);
    comm.broadcast(view(local), root);
    for (int64_t i = 0; i < n; ++i) ASSERT_EQ(local[cell(i)], value<T>(root, i));
  }
}

// Odd sizes, none at all, and more than one block of the summation (1024).
const std::vector<int64_t> kSizes = {0, 1, 3, 7, 1024, 2051};

TEST(Comm, CollectivesOfOneToFiveRanks) {
  for (int ranks = 1; ranks <= 5; ++ranks) {
    LocalGroup group(ranks);
    EXPECT_EQ(group.size(), ranks);
    group.run([](Comm& comm) {
      for (const int64_t n : kSizes) {
        check_collectives<float>(comm, n);
        check_collectives<double>(comm, n);
        check_collectives<int32_t>(comm, n);
        check_collectives<int64_t>(comm, n);
      }
    });
  }
}

TEST(Comm, NullCommIsAGroupOfOne) {
  NullComm comm;
  EXPECT_EQ(comm.size(), 1);
  for (const int64_t n : kSizes) check_collectives<float>(comm, n);
  comm.barrier();
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

std::string message_of(LocalGroup& group, const std::function<void(Comm&)>& body) {
  try {
    group.run(body);
  } catch (const std::exception& e) {
    return e.what();
  }
  return "no exception";
}

void expect_in(const std::string& message, const std::vector<std::string>& parts) {
  for (const auto& part : parts)
    EXPECT_NE(message.find(part), std::string::npos) << "no '" << part << "' in: " << message;
}

TEST(Comm, DifferentCallsAreNamed) {
  LocalGroup group(3);
  expect_in(message_of(group,
                       [](Comm& comm) {
                         std::vector<float> x(4);
                         if (comm.rank() == 2)
                           comm.barrier();
                         else
                           comm.all_reduce_sum(view(x));
                       }),
            {"rank 0 calls all_reduce_sum of f32 [4]", "rank 2 calls barrier"});
  expect_in(message_of(group,
                       [](Comm& comm) {
                         std::vector<float> x(comm.rank() == 1 ? 5 : 4);
                         comm.all_reduce_sum(view(x));
                       }),
            {"rank 0 calls all_reduce_sum of f32 [4]", "rank 1 calls all_reduce_sum of f32 [5]"});
  expect_in(message_of(group,
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
  const std::string message = message_of(group, [&](Comm& comm) {
    if (comm.rank() == 2) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));  // the others wait by now
      throw std::runtime_error("disk on fire");
    }
    try {
      comm.barrier();
    } catch (const Error& e) {
      expect_in(e.what(), {"barrier", "rank 2 failed: disk on fire"});
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
  expect_in(message_of(group,
                       [](Comm& comm) {
                         if (comm.rank() != 1) comm.barrier();
                       }),
            {"rank 1 returned while rank", "waits in barrier"});
}

TEST(Comm, ContractViolations) {
  LocalGroup group(2);
  std::vector<float> a(6), b(4);
  expect_in(message_of(group, [&](Comm& comm) { comm.all_gather(view(b), view(a)); }),
            {"all_gather", "f32 [4]", "f32 [6]", "2 times"});
  expect_in(message_of(group, [&](Comm& comm) { comm.broadcast(view(a), 2); }),
            {"broadcast from rank 2 of 2"});
  expect_in(message_of(group, [&](Comm& comm) { comm.all_reduce_sum(Tensor{}); }), {"t is"});
  std::vector<uint8_t> bytes(4);
  expect_in(message_of(group, [&](Comm& comm) { comm.all_reduce_sum(view(bytes)); }),
            {"sums of u8"});
  expect_in(message_of(group,
                       [&](Comm& comm) {
                         std::vector<float> all(6);
                         comm.all_gather(view(all).rows(1, 3), view(all));
                       }),
            {"local overlaps all at byte 4"});
  std::vector<float> square(16);
  const Tensor strided = make_tensor(square.data(), DType::f32, Device::cpu, {4, 4}).columns(0, 3);
  expect_in(message_of(group, [&](Comm& comm) { comm.all_reduce_sum(strided); }), {"dense"});
  EXPECT_THROW(LocalGroup(0), Error);
}

}  // namespace
}  // namespace sluice
