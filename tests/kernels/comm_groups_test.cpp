// tests/kernels/comm_groups_test.cpp -- groups split off, what is counted, and collectives beside
// the caller.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "kernels/comm/comm_queue.h"
#include "kernels/comm/local_comm.h"
#include "tests/support/comm_problem.h"
#include "tests/support/message.h"

namespace sluice {
namespace {

using test::view;
using Clock = std::chrono::steady_clock;
const Context kCpu;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

TEST(CommGroups, PartsWorkAtTheSameTimeAndDoNotMix) {
  LocalGroup(6).run([](Comm& comm) {
    const int r = comm.rank();
    const auto row = comm.split(r / 3, r, {.what = "row"});
    const auto column = comm.split(r % 3, r, {.what = "column"});
    for (int round = 0; round < 50; ++round) {
      std::vector<int64_t> x = {r + round};
      row->all_reduce_sum(view(x));
      ASSERT_EQ(x[0], 3 * (3 * (r / 3) + 1 + round));
      if (r / 3 == round % 2) row->barrier();  // one row alone
      column->all_reduce_sum(view(x));
      ASSERT_EQ(x[0], 15 + 6 * round);
    }
  });
}

TEST(CommGroups, NamesAreCompared) {
  LocalGroup group(2);
  test::expect_contains(
      test::failure_of(group,
                       [](Comm& comm) {
                         std::vector<float> x(4);
                         comm.all_reduce_sum(view(x), {.what = comm.rank() ? "head" : "layer 3"});
                       }),
      {"rank 0 calls all_reduce_sum 'layer 3' of f32 [4]", "rank 1 calls all_reduce_sum 'head'"});
}

TEST(CommGroups, CountsOfAnAllToAllMustAgree) {
  LocalGroup group(3);
  test::expect_contains(
      test::failure_of(group,
                       [](Comm& comm) {
                         std::vector<float> x(9), y(12);
                         std::vector<int64_t> counts = {1, 2, 3}, from(3, comm.rank() + 1);
                         if (comm.rank() == 2) from[1] = 4;
                         comm.all_to_all_v(view(x), {counts, {}}, view(y), {from, {}});
                       }),
      {"rank 1 sends 3 elements to rank 2, which receives 4"});
  std::vector<float> x(6), y(6);
  const std::vector<int64_t> two = {2, 2}, three = {2, 2, 2}, late = {0, 1, 5};
  test::expect_contains(test::failure_of(group,
                                         [&](Comm& c) {
                                           c.all_to_all_v(view(x), {two, {}}, view(y), {two, {}});
                                         }),
                        {"send has 2 counts", "expected 3"});
  test::expect_contains(
      test::failure_of(group,
                       [&](Comm& c) {
                         c.all_to_all_v(view(x), {three, late}, view(y), {three, {}});
                       }),
      {"part 2 of send is 2 elements from 5 on"});
  test::expect_contains(
      test::failure_of(group,
                       [&](Comm& c) {
                         c.all_to_all_v(view(x), {three, {}}, view(x), {three, {}});
                       }),
      {"no overlap"});
}

TEST(CommGroups, AFailureReleasesRanksThatWaitInParts) {
  LocalGroup group(4);
  const auto failing = [](Comm& comm, bool throws) {
    const auto pair = comm.split(comm.rank() / 2, 0, {.what = "pair"});
    if (comm.rank() == 3 && throws) throw std::runtime_error("out of paper");
    if (comm.rank() == 3) return;
    pair->barrier();
    comm.barrier();
  };
  EXPECT_EQ(test::failure_of(group, [&](Comm& comm) { failing(comm, true); }), "out of paper");
  test::expect_contains(test::failure_of(group, [&](Comm& comm) { failing(comm, false); }),
                        {"rank 3 returned while rank"});
}

TEST(CommGroups, BytesAreCountedByGroupOpAndName) {
  LocalGroup(4).run([](Comm& comm) {
    const auto pair = comm.split(comm.rank() / 2, 0, {.what = "pair"});
    comm.ledger().clear();
    std::vector<float> part(6), all(24), halves(12);
    std::vector<int64_t> counts = {1, 2, 3, 4};
    counts[size_t(comm.rank())] = 7;
    for (int i = 0; i < 2; ++i) {
      comm.all_gather(view(part), view(all), {.what = "w"});
      comm.reduce_scatter(view(all), view(part), {.what = "g"});
      pair->all_gather(view(part), view(halves), {.what = "w"});
      comm.all_reduce_sum(view(halves));
      comm.broadcast(view(part), 1);
      comm.barrier();
    }
    const CommCounts c = comm.ledger().counts();
    const auto expect = [&](const char* group, CommOp op, const char* what, int64_t bytes) {
      const auto found = c.find({group, op, what});
      ASSERT_TRUE(found != c.end()) << group << " " << name(op) << " " << what;
      EXPECT_EQ(found->second.calls, 2);
      EXPECT_EQ(found->second.bytes, 2 * bytes) << group << " " << name(op) << " " << what;
    };
    expect("world", CommOp::all_gather, "w", 3 * 24);
    expect("world", CommOp::reduce_scatter, "g", 3 * 24);
    expect("pair", CommOp::all_gather, "w", 24);
    expect("world", CommOp::all_reduce_sum, "", 2 * 3 * 3 * 4);
    expect("world", CommOp::broadcast, "", comm.rank() == 1 ? 3 * 24 : 0);
    expect("world", CommOp::barrier, "", 0);
    EXPECT_EQ(c.size(), 6u);
    EXPECT_EQ(total(c).calls, 12);
  });
}

TEST(CommQueueTest, RunsInOrderBesideTheCaller) {
  LocalGroup(3).run([](Comm& comm) {
    const auto own = comm.split(0, comm.rank(), {.what = "queue"});
    std::vector<int64_t> x = {1};
    CommQueue queue(*own);
    CommQueue::Ticket last = 0;
    for (int i = 0; i < 20; ++i) {
      last =
          queue.submit("x", kCpu, [&](const CommUse& use) { own->all_reduce_sum(view(x), use); });
      comm.barrier();  // the caller's own, at the same time
    }
    queue.wait(last, kCpu);
    int64_t want = 1;
    for (int i = 0; i < 20; ++i) want *= 3;
    ASSERT_EQ(x[0], want);
    EXPECT_EQ(own->ledger().counts().at({"queue", CommOp::all_reduce_sum, "x"}).calls, 20);
  });
}

TEST(CommQueueTest, InjectedTimeOverlaps) {
  constexpr double kLatency = 0.1;
  const auto start = Clock::now();
  LocalGroup(2, {.latency_seconds = kLatency, .bytes_per_second = 2e5}).run([&](Comm& comm) {
    std::vector<float> x(10000);
    CommQueue queue(comm);
    const auto t0 = Clock::now();
    const auto ticket =
        queue.submit("x", kCpu, [&](const CommUse& use) { comm.all_reduce_sum(view(x), use); });
    EXPECT_LT(seconds_since(t0), kLatency);  // the caller goes on
    std::this_thread::sleep_for(std::chrono::duration<double>(0.3));
    queue.wait(ticket, kCpu);
  });
  // 0.1 s and 40000 bytes at 200 kB/s, beside 0.3 s: not the sum.
  EXPECT_GE(seconds_since(start), 0.3);
  EXPECT_LT(seconds_since(start), 0.5);
}

TEST(CommQueueTest, AnErrorInItsWorkIsTheCallers) {
  LocalGroup group(2);
  EXPECT_EQ(test::failure_of(group,
                             [](Comm& comm) {
                               CommQueue queue(comm);
                               const auto ticket = queue.submit("x", kCpu, [&](const CommUse&) {
                                 if (comm.rank() == 1) throw std::runtime_error("bad cable");
                                 comm.barrier();
                               });
                               queue.wait(ticket, kCpu);
                             }),
            "bad cable");
}

// Rank 1 fails with work in its queue that waits for rank 0, which never comes to it.
TEST(CommQueueTest, AnExceptionDoesNotWaitForTheQueue) {
  LocalGroup group(2);
  const std::string message = test::failure_of(group, [](Comm& comm) {
    const auto own = comm.split(0, 0, {.what = "queue"});
    CommQueue queue(*own);
    if (comm.rank() == 0) comm.barrier();
    queue.submit("x", kCpu, [&](const CommUse& use) { own->barrier(use); });
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    throw std::runtime_error("rank 1 is done for");
  });
  EXPECT_TRUE(message == "rank 1 is done for" || message.find("gave up") != std::string::npos)
      << message;
}

}  // namespace
}  // namespace sluice
