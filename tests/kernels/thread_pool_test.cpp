// tests/kernels/thread_pool_test.cpp -- every block once, errors come out, misuse is refused.
#include "kernels/base/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#include "tests/support/message.h"

namespace sluice::test {
namespace {

TEST(ThreadPool, RunsEveryBlockOnce) {
  for (int threads = 1; threads <= 8; ++threads) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (const int64_t blocks : {0, 1, 2, 7, 8, 1000})
      for (int again = 0; again < 5; ++again) {
        std::vector<int> ran(size_t(blocks), 0);  // not atomic: a block is one thread's
        pool.parallel_for(blocks, [&](int64_t i) { ++ran[size_t(i)]; });
        ASSERT_EQ(ran, std::vector<int>(size_t(blocks), 1)) << threads << " threads";
      }
  }
  expect_contains(error_of([] { ThreadPool pool(0); }), {"threads is 0"});
}

// What the caller wrote is seen by the blocks, what they wrote is seen by the caller.
TEST(ThreadPool, LoopsAreInOrder) {
  ThreadPool pool(4);
  std::vector<int64_t> x(64, 1);
  for (int loop = 0; loop < 200; ++loop) {
    pool.parallel_for(64, [&](int64_t i) { x[size_t(i)] = x[size_t(i)] * 3 % 1000003 + i; });
    std::rotate(x.begin(), x.begin() + 1, x.end());
  }
  std::vector<int64_t> want(64, 1);
  for (int loop = 0; loop < 200; ++loop) {
    for (int64_t i = 0; i < 64; ++i) want[size_t(i)] = want[size_t(i)] * 3 % 1000003 + i;
    std::rotate(want.begin(), want.begin() + 1, want.end());
  }
  EXPECT_EQ(x, want);
}

TEST(ThreadPool, AnExceptionOfABlockComesOut) {
  for (const int threads : {1, 2, 8}) {
    ThreadPool pool(threads);
    for (const int64_t bad : {0, 3, 99})
      EXPECT_EQ(error_of([&] {
                  pool.parallel_for(100, [&](int64_t i) {
                    if (i == bad) throw Error("block " + std::to_string(i));
                  });
                }),
                "block " + std::to_string(bad));
    EXPECT_THROW(pool.parallel_for(50, [](int64_t) { throw 7; }), int);
    std::atomic<int> ran{0};
    pool.parallel_for(100, [&](int64_t) { ++ran; });  // the old error is forgotten
    EXPECT_EQ(ran, 100);
  }
}

TEST(ThreadPool, ALoopInALoopIsRefused) {
  for (const int threads : {1, 2, 4}) {
    ThreadPool pool(threads);
    for (const int64_t blocks : {1, 5})
      expect_contains(error_of([&] {
                        pool.parallel_for(blocks,
                                          [&](int64_t) { pool.parallel_for(3, [](int64_t) {}); });
                      }),
                      {"a loop in a loop"});
    int sum = 0;
    pool.parallel_for(1, [&](int64_t) { sum = 1; });
    EXPECT_EQ(sum, 1);
  }
}

TEST(ThreadPool, ASecondCallerIsRefused) {
  ThreadPool pool(2);
  std::atomic<bool> inside{false}, leave{false};
  std::thread other([&] {
    pool.parallel_for(1, [&](int64_t) {
      inside = true;
      while (!leave) std::this_thread::yield();
    });
  });
  while (!inside) std::this_thread::yield();
  expect_contains(error_of([&] { pool.parallel_for(3, [](int64_t) {}); }), {"two threads"});
  leave = true;
  other.join();
}

}  // namespace
}  // namespace sluice::test
