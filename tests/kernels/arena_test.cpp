// tests/kernels/arena_test.cpp -- which range is taken, what is given back, and what it costs.
#include "kernels/tensor/arena.h"

#include <cmath>
#include <cstring>
#include <map>

#include "kernels/tensor/rng.h"
#include "tests/support/message.h"

namespace sluice::test {
namespace {

constexpr int64_t kUnit = 256;

Arena with_units(int64_t units) {
  return Arena(Device::cpu, units * kUnit);
}

TEST(Arena, TakesTheFirstRangeThatFits) {
  Arena arena = with_units(8);
  const int64_t a = arena.take(2 * kUnit), b = arena.take(1), c = arena.take(kUnit + 1);
  EXPECT_EQ(std::vector<int64_t>({a, b, c}), (std::vector<int64_t>{0, 2 * kUnit, 3 * kUnit}));
  EXPECT_EQ(arena.used(), 5 * kUnit);
  const int64_t d = arena.take(0);  // also nothing has an address of its own
  EXPECT_EQ(d, 5 * kUnit);
  arena.give(a), arena.give(c);
  EXPECT_EQ(arena.take(kUnit), 0) << "the lower of two holes";
  EXPECT_EQ(arena.take(2 * kUnit), 3 * kUnit) << "the first that is large enough";
  EXPECT_EQ(arena.take(kUnit), kUnit) << "the rest of a hole";
  EXPECT_EQ(arena.peak(), 6 * kUnit);
}

// Whatever the order, free neighbours become one range, up to the untouched end.
TEST(Arena, NeighboursCoalesce) {
  const std::vector<std::vector<size_t>> orders = {{0, 1, 2}, {2, 1, 0}, {0, 2, 1},
                                                   {1, 0, 2}, {1, 2, 0}, {2, 0, 1}};
  for (const bool fenced : {true, false})
    for (const auto& order : orders) {
      Arena arena = with_units(4);
      int64_t at[3];
      for (int64_t& offset : at) offset = arena.take(kUnit);
      if (fenced) arena.take(kUnit);
      for (const size_t i : order) arena.give(at[i]);
      EXPECT_EQ(arena.used(), fenced ? kUnit : 0);
      EXPECT_EQ(arena.take(3 * kUnit), 0);
    }
}

TEST(Arena, OverCapacityNamesTheSizes) {
  Arena arena = with_units(4);
  const int64_t a = arena.take(2 * kUnit);
  arena.take(kUnit);
  arena.give(a);  // 2 free, 1 in use, 1 free: 3 in all, 2 in a row
  expect_contains(error_of([&] { arena.take(2 * kUnit + 1); }),
                  {"holds 1024 bytes", "256 are in use", "no free range has 768"});
  EXPECT_EQ(arena.take(2 * kUnit), 0) << "usable after the error";
}

TEST(Arena, FreshAndFreedMemoryIsPoison) {
  Arena arena = with_units(4);
  arena.set_poison(Arena::Poison::on);
  const float* data = nullptr;
  {
    ArenaTensor t(arena, DType::f32, {3, 5});
    data = t.view().as<float>();
    EXPECT_EQ(reinterpret_cast<uintptr_t>(data) % 256, 0u);
    for (int64_t i = 0; i < 15; ++i) EXPECT_TRUE(std::isnan(data[i]));
    std::memset(t.view().data, 0, size_t(t.view().bytes()));
  }
  for (int64_t i = 0; i < 15; ++i) EXPECT_TRUE(std::isnan(data[i]));
}

TEST(ArenaTensor, GivesItsRangeBackOnce) {
  Arena arena = with_units(8);
  ArenaTensor a(arena, DType::f64, {4}), b(arena, DType::f64, {4});
  const void* of_b = b.view().data;
  a = std::move(b);  // a's own range goes back, b's changes hands
  EXPECT_EQ(arena.used(), kUnit);
  EXPECT_EQ(a.view().data, of_b);
  EXPECT_FALSE(b.view());  // NOLINT: what a moved-from one promises
  b.release();
  const ArenaTensor like(arena, a.view().reshape({2, 2}));
  EXPECT_EQ(to_string(like), "f64 [2, 2] on cpu");
  a.release(), a.release();
  EXPECT_EQ(arena.used(), kUnit);
}

TEST(ArenaTensor, LikeAStridedOneIsDense) {
  Arena arena = with_units(8);
  const ArenaTensor wide(arena, DType::f32, {3, 10});
  const ArenaTensor t(arena, wide.view().columns(2, 4));
  EXPECT_TRUE(t.view().dense());
  EXPECT_EQ(t.view().stride[0], 4);
  EXPECT_NE(t.view().data, wide.view().data);
}

// A random life of 3000 takes and gives: ranges never overlap, their bytes are the owner's, and a
// planning arena says the same offsets and the same peak, which is then enough.
TEST(Arena, ThePlanIsTheRun) {
  const auto live = [](Arena& arena) {
    std::map<int64_t, int64_t> held;
    std::vector<int64_t> seen;
    for (uint64_t i = 0; i < 3000; ++i) {
      const uint64_t r = random_u64(9, i);
      if (r % 5 < 3 || held.empty()) {
        const auto bytes = int64_t(r >> 8) % 5000;
        const int64_t at = arena.take(bytes);
        const auto after = held.upper_bound(at);
        EXPECT_TRUE(after == held.end() || at + bytes <= after->first);
        EXPECT_TRUE(after == held.begin() ||
                    std::prev(after)->first + std::prev(after)->second <= at);
        held[at] = bytes;
        seen.push_back(at);
      } else {
        const auto it = std::next(held.begin(), int64_t(r >> 8) % int64_t(held.size()));
        arena.give(it->first);
        held.erase(it);
      }
    }
    for (const auto& [at, bytes] : held) arena.give(at);
    EXPECT_EQ(arena.used(), 0);
    return seen;
  };
  Arena plan = Arena::plan(Device::cpu);
  const auto want = live(plan);
  EXPECT_EQ(plan.address(0), nullptr);
  Arena run(Device::cpu, plan.peak());
  EXPECT_EQ(live(run), want);
  EXPECT_EQ(run.peak(), plan.peak());
  run.reset_peak();
  EXPECT_EQ(run.peak(), 0);
  Arena moved(std::move(run));
  EXPECT_EQ(live(moved), want);
}

}  // namespace
}  // namespace sluice::test
