// kernels/gated_rmsnorm/bench.cpp -- both directions, in GB/s of what must move.
#include "kernels/bench/bench.h"
#include "kernels/gated_rmsnorm/gated_rmsnorm.h"

namespace sluice {
namespace {

// Forward reads x and the gate and writes y; backward reads x, gate and dy and writes two.
void gated_rmsnorm(benchmark::State& state, bool backward) {
  const int64_t N = state.range(0), H = state.range(1), C = state.range(2);
  ThreadPool pool(int(state.range(3)));
  Arena arena(Device::cpu, 16 << 20);
  const Context ctx{.arena = &arena, .threads = &pool};
  const Buffer x = bench::normal({N, H, C}, 1), gate = bench::normal({N, H, C}, 2);
  const Buffer y = bench::normal({N, H, C}, 3), w = bench::normal({C}, 4), rstd(DType::f32, {N, H});
  const Buffer dx(x.view()), dgate(x.view()), dw(w.view());
  const GatedRmsNormForward f{.x = x.view(),
                              .gate = gate.view(),
                              .w = w.view(),
                              .y = y.view(),
                              .rstd = rstd.view(),
                              .eps = 1e-5};
  gated_rmsnorm_forward(ctx, f);
  for ([[maybe_unused]] auto _ : state) {
    if (backward)
      gated_rmsnorm_backward(ctx, {.x = x.view(),
                                   .gate = gate.view(),
                                   .w = w.view(),
                                   .rstd = rstd.view(),
                                   .dy = y.view(),
                                   .dx = {dx.view()},
                                   .dgate = {dgate.view()},
                                   .dw = {dw.view()}});
    else
      gated_rmsnorm_forward(ctx, f);
  }
  bench::report_bytes(state, ctx, (backward ? 5.0 : 3.0) * double(x.view().bytes()));
}

void shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"N", "H", "C", "threads"});
  for (int64_t threads : {1, 2}) b->Args({4096, 4, 48, threads})->Args({4096, 16, 128, threads});
  b->Unit(benchmark::kMicrosecond)->UseRealTime();
}
BENCHMARK_CAPTURE(gated_rmsnorm, forward, false)->Apply(shapes);
BENCHMARK_CAPTURE(gated_rmsnorm, backward, true)->Apply(shapes);

}  // namespace
}  // namespace sluice

BENCHMARK_MAIN();
