// tests/trainer/overlap_test.cpp -- what of a step's collectives is seen, on ranks as threads with
// a link that takes its time.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <iostream>
#include <thread>

#include "kernels/comm/local_comm.h"
#include "trainer/parallel/sharded_store.h"

namespace sluice {
namespace {

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
TEST(Overlap, AStepTakesTheLongerOfComputeAndTalk) {
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

}  // namespace
}  // namespace sluice
