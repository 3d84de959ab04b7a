// kernels/short_conv/bench.cpp -- both directions, in GB/s of what must move.
#include "kernels/bench/bench.h"
#include "kernels/short_conv/short_conv.h"

namespace sluice {
namespace {

// Forward reads x and writes y; backward reads x and dy and writes dx. Eight documents.
void short_conv(benchmark::State& state, bool backward) {
  const int64_t N = state.range(0), C = state.range(1), W = state.range(2);
  ThreadPool pool(int(state.range(3)));
  Arena arena(Device::cpu, 16 << 20);
  const Context ctx{.arena = &arena, .threads = &pool};
  const Buffer x = bench::normal({N, C}, 1), y = bench::normal({N, C}, 2);
  const Buffer w = bench::normal({C, W}, 3), dx(x.view()), dw(w.view());
  const Buffer cu = bench::equal_documents(8, N / 8);
  for ([[maybe_unused]] auto _ : state) {
    if (backward)
      short_conv_backward(ctx, {.x = x.view(),
                                .w = w.view(),
                                .cu_seqlens = cu.view(),
                                .initial_state = {},
                                .dy = y.view(),
                                .dfinal_state = {},
                                .dx = {dx.view()},
                                .dw = {dw.view()},
                                .dinitial_state = {}});
    else
      short_conv_forward(ctx, {.x = x.view(),
                               .w = w.view(),
                               .cu_seqlens = cu.view(),
                               .initial_state = {},
                               .y = y.view(),
                               .final_state = {}});
  }
  bench::report_bytes(state, ctx, (backward ? 3.0 : 2.0) * double(x.view().bytes()));
}

void shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"N", "C", "W", "threads"});
  for (int64_t threads : {1, 2}) b->Args({4096, 576, 4, threads})->Args({4096, 6144, 4, threads});
  b->Args({4096, 576, 2, 2})->Unit(benchmark::kMicrosecond)->UseRealTime();
}
BENCHMARK_CAPTURE(short_conv, forward, false)->Apply(shapes);
BENCHMARK_CAPTURE(short_conv, backward, true)->Apply(shapes);

}  // namespace
}  // namespace sluice

BENCHMARK_MAIN();
