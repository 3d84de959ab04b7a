// kernels/swiglu/bench.cpp -- both directions, in GB/s of what must move.
#include "kernels/bench/bench.h"
#include "kernels/swiglu/swiglu.h"

namespace sluice {
namespace {

void swiglu(benchmark::State& state, bool backward) {
  const int64_t N = state.range(0), F = state.range(1);
  ThreadPool pool(int(state.range(2)));
  const Context ctx{.threads = &pool};
  const Buffer gate_up = bench::normal({N, 2 * F}, 1), y = bench::normal({N, F}, 2);
  const Buffer dgate_up(gate_up.view());
  for ([[maybe_unused]] auto _ : state) {
    if (backward)
      swiglu_backward(ctx,
                      {.gate_up = gate_up.view(), .dy = y.view(), .dgate_up = {dgate_up.view()}});
    else
      swiglu_forward(ctx, {.gate_up = gate_up.view(), .y = y.view()});
  }
  bench::report_bytes(state, ctx, (backward ? 5.0 : 3.0) * double(y.view().bytes()));
}

void shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"N", "C", "threads"});
  for (int64_t threads : {1, 2}) b->Args({4096, 192, threads})->Args({4096, 2048, threads});
  b->Unit(benchmark::kMicrosecond)->UseRealTime();
}
BENCHMARK_CAPTURE(swiglu, forward, false)->Apply(shapes);
BENCHMARK_CAPTURE(swiglu, backward, true)->Apply(shapes);

}  // namespace
}  // namespace sluice

BENCHMARK_MAIN();
