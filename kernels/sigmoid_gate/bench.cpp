// kernels/sigmoid_gate/bench.cpp -- both directions, in GB/s of what must move.
#include "kernels/bench/bench.h"
#include "kernels/sigmoid_gate/sigmoid_gate.h"

namespace sluice {
namespace {

void sigmoid_gate(benchmark::State& state, bool backward) {
  const int64_t N = state.range(0), C = state.range(1);
  ThreadPool pool(int(state.range(2)));
  const Context ctx{.threads = &pool};
  const Buffer x = bench::normal({N, C}, 1), gate = bench::normal({N, C}, 2);
  const Buffer y = bench::normal({N, C}, 3), dx(x.view()), dgate(x.view());
  for ([[maybe_unused]] auto _ : state) {
    if (backward)
      sigmoid_gate_backward(ctx, {.x = x.view(),
                                  .gate = gate.view(),
                                  .dy = y.view(),
                                  .dx = {dx.view()},
                                  .dgate = {dgate.view()}});
    else
      sigmoid_gate_forward(ctx, {.x = x.view(), .gate = gate.view(), .y = y.view()});
  }
  bench::report_bytes(state, ctx, (backward ? 5.0 : 3.0) * double(y.view().bytes()));
}

void shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"N", "C", "threads"});
  for (int64_t threads : {1, 2}) b->Args({4096, 192, threads})->Args({4096, 2048, threads});
  b->Unit(benchmark::kMicrosecond)->UseRealTime();
}
BENCHMARK_CAPTURE(sigmoid_gate, forward, false)->Apply(shapes);
BENCHMARK_CAPTURE(sigmoid_gate, backward, true)->Apply(shapes);

}  // namespace
}  // namespace sluice

BENCHMARK_MAIN();
