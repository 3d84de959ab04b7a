// kernels/add/bench.cpp -- both directions, in GB/s of what must move.
#include "kernels/bench/bench.h"
#include "kernels/add/add.h"

namespace sluice {
namespace {

void add(benchmark::State& state, bool backward) {
  const int64_t N = state.range(0), C = state.range(1);
  ThreadPool pool(int(state.range(2)));
  const Context ctx{.threads = &pool};
  const Buffer a = bench::normal({N, C}, 1), b = bench::normal({N, C}, 2), y(a.view());
  for ([[maybe_unused]] auto _ : state) {
    if (backward)
      add_backward(ctx, {.dy = y.view(), .da = {a.view()}, .db = {b.view()}});
    else
      add_forward(ctx, {.a = a.view(), .b = b.view(), .y = y.view()});
  }
  bench::report_bytes(state, ctx, 3.0 * double(y.view().bytes()));
}

void shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"N", "C", "threads"});
  for (int64_t threads : {1, 2}) b->Args({4096, 192, threads})->Args({4096, 2048, threads});
  b->Unit(benchmark::kMicrosecond)->UseRealTime();
}
BENCHMARK_CAPTURE(add, forward, false)->Apply(shapes);
BENCHMARK_CAPTURE(add, backward, true)->Apply(shapes);

}  // namespace
}  // namespace sluice

BENCHMARK_MAIN();
