// tests/data/prefetch_test.cpp -- the same micro-batches in any order, waiting, errors, ending.
#include "data/loader/prefetch.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>

#include "tests/support/message.h"

namespace sluice {
namespace {

using std::chrono::milliseconds;

constexpr int64_t kMicroBatches = 3;  // of a step

// Micro-batches that hold their own number, from a source that may be slow, fail, or be watched.
struct Source {
  milliseconds delay{0};
  int64_t fails_at = -1;
  std::atomic<int64_t> made{0};
  std::atomic<int> inside{0};

  void load(int64_t step, int64_t m, MicroBatch& b) {
    EXPECT_EQ(++inside, 1) << "by one thread at a time";
    std::this_thread::sleep_for(delay);
    const int64_t number = step * kMicroBatches + m;
    for (int64_t i = 0; i < 8; ++i) b.tokens.as<int32_t>()[i] = int32_t(number);
    --inside;
    if (number == fails_at) throw Error(cat("micro-batch ", number, " is unreadable"));
    ++made;
  }
  Prefetcher prefetcher(int64_t buffers = 3) {
    std::vector<MicroBatchBuffer> list;
    for (int64_t i = 0; i < buffers; ++i) list.emplace_back(8, 1);
    return {std::move(list), kMicroBatches,
            [this](int64_t step, int64_t m, MicroBatch& b) { load(step, m, b); }};
  }
  void wait_for(int64_t count) const {
    for (int i = 0; i < 20000 && made < count; ++i) std::this_thread::sleep_for(milliseconds(1));
    EXPECT_GE(made, count);
  }
};

int64_t number_in(Prefetcher& p, int64_t number) {
  const MicroBatch& b = p.get(number / kMicroBatches, number % kMicroBatches);
  const int32_t first = b.tokens.as<int32_t>()[0];
  for (int64_t i = 1; i < 8; ++i) EXPECT_EQ(b.tokens.as<int32_t>()[i], first);
  return first;
}

TEST(Prefetcher, GivesWhatIsAskedForInAnyOrder) {
  for (const int64_t buffers : {2, 3, 4}) {
    Source source;
    Prefetcher p = source.prefetcher(buffers);
    for (int64_t i = 0; i < 200; ++i) EXPECT_EQ(number_in(p, i), i);
    // A resumed run, a step that is run again, the same once more, and jumps.
    for (const int64_t i : {900, 901, 902, 900, 901, 901, 902, 903, 7, 8, 0, 1, 5000, 4999, 5001})
      EXPECT_EQ(number_in(p, i), i);
    for (uint64_t i = 0; i < 300; ++i) {
      const auto number = int64_t(i * 7919 % 13);
      EXPECT_EQ(number_in(p, number), number);
    }
  }
}

// What was given stays until the next call, however far ahead the thread is.
TEST(Prefetcher, MakesAsManyAsThereAreBuffers) {
  Source source;
  Prefetcher p = source.prefetcher(3);
  const MicroBatch& b = p.get(0, 0);
  source.wait_for(3);
  std::this_thread::sleep_for(milliseconds(20));
  EXPECT_EQ(source.made, 3) << "the one in use and two ahead";
  EXPECT_EQ(b.tokens.as<int32_t>()[0], 0);
  EXPECT_EQ(number_in(p, 1), 1);
  source.wait_for(4);
}

TEST(Prefetcher, WaitingIsMeasuredAndOverlapsTheStep) {
  Source source{.delay = milliseconds(60)};
  Prefetcher p = source.prefetcher();
  EXPECT_EQ(number_in(p, 0), 0);
  const double first = p.waited_ms();
  EXPECT_GE(first, 59);
  source.wait_for(2);  // a step that takes longer than the source
  EXPECT_EQ(number_in(p, 1), 1);
  EXPECT_LT(p.waited_ms() - first, 59) << "it was there already";
  EXPECT_EQ(number_in(p, 50), 50);  // not foreseen
  EXPECT_GE(p.waited_ms() - first, 59);
}

TEST(Prefetcher, ErrorsComeAtTheStepThatNeedsThem) {
  Source source{.fails_at = 4};
  Prefetcher p = source.prefetcher();
  for (int64_t i = 0; i < 4; ++i) EXPECT_EQ(number_in(p, i), i);
  for (int again = 0; again < 2; ++again)
    EXPECT_EQ(test::error_of([&] { p.get(1, 1); }), "micro-batch 4 is unreadable");
  EXPECT_EQ(number_in(p, 2), 2);
  EXPECT_EQ(number_in(p, 3), 3);
  EXPECT_EQ(test::error_of([&] { p.get(1, 1); }), "micro-batch 4 is unreadable");
  EXPECT_EQ(number_in(p, 6), 6);
  test::expect_contains(test::error_of([&] { p.get(1, 3); }), {"micro-batch 3 of 3"});
  test::expect_contains(test::error_of([&] { source.prefetcher(1); }), {"1 buffers"});
}

TEST(Prefetcher, EndsWhateverItIsDoing) {
  Source source;
  { const Prefetcher never_asked = source.prefetcher(); }
  source.delay = milliseconds(30);
  for (int i = 0; i < 3; ++i) {
    Prefetcher p = source.prefetcher();
    p.get(0, 0);  // the thread is in the next one
  }
  source.delay = milliseconds(0);
  Prefetcher full = source.prefetcher();
  full.get(0, 0);
  std::this_thread::sleep_for(milliseconds(5));
  EXPECT_EQ(source.inside, 0);
}

}  // namespace
}  // namespace sluice
