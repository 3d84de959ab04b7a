// kernels/grad_norm/bench.cpp -- the sum of squares, in GB/s of what must be read.
#include "kernels/bench/bench.h"
#include "kernels/grad_norm/grad_norm.h"

namespace sluice {
namespace {

void sum_of_squares(benchmark::State& state) {
  const int64_t n = state.range(0);
  ThreadPool pool(int(state.range(1)));
  Arena arena(Device::cpu, 16 << 20);
  const Context ctx{.arena = &arena, .threads = &pool};
  const Buffer g = bench::normal({n}, 1), sum(DType::f64, {1});
  const std::vector<Tensor> grads{g.view()};
  for ([[maybe_unused]] auto _ : state)
    grad_norm(ctx, {.grads = grads, .sum_of_squares = sum.view()});
  bench::report_bytes(state, ctx, double(g.view().bytes()));
}

BENCHMARK(sum_of_squares)
    ->ArgNames({"n", "threads"})
    ->ArgsProduct({{1 << 18, 1 << 21, 1 << 24}, {1, 2}})
    ->Unit(benchmark::kMicrosecond)
    ->UseRealTime();

}  // namespace
}  // namespace sluice

BENCHMARK_MAIN();
