// kernels/rmsnorm/bench.cpp -- forward and backward of both back ends, in GB/s of what must move.
#include <benchmark/benchmark.h>

#include "kernels/rmsnorm/rmsnorm.h"
#include "kernels/tensor/rng.h"

namespace sluice {
namespace {

enum class What : uint8_t { forward, backward };

// Arguments: N, C, threads.
void run(benchmark::State& state, Mode mode, What what) {
  const int64_t N = state.range(0), C = state.range(1);
  ThreadPool pool(int(state.range(2)));
  Arena arena(Device::cpu, 64 << 20);
  const Context ctx{.mode = mode, .arena = &arena, .threads = &pool};
  const Buffer x(DType::f32, {N, C}), w(DType::f32, {C}), y(DType::f32, {N, C});
  const Buffer dx(DType::f32, {N, C}), dw(DType::f32, {C}), rstd(DType::f32, {N});
  for (const Tensor& t : {x.view(), w.view(), y.view(), rstd.view()})
    for (int64_t i = 0; i < t.numel(); ++i) t.as<float>()[i] = float(random_normal(1, uint64_t(i)));
  for ([[maybe_unused]] auto _ : state) {
    if (what == What::forward)
      rmsnorm_forward(
          ctx, {.x = x.view(), .w = w.view(), .y = y.view(), .rstd = rstd.view(), .eps = 1e-6});
    else
      rmsnorm_backward(ctx, {.x = x.view(),
                             .w = w.view(),
                             .rstd = rstd.view(),
                             .dy = y.view(),
                             .dx = {dx.view()},
                             .dw = {dw.view()}});
  }
  // Forward reads x and writes y; backward reads x and dy and writes dx.
  const double bytes = (what == What::forward ? 2.0 : 3.0) * double(x.view().bytes());
  state.counters["GB/s"] =
      benchmark::Counter(bytes * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

void shapes(benchmark::internal::Benchmark* b) {
  for (int64_t threads : {1, 2}) b->Args({4096, 192, threads})->Args({4096, 768, threads});
  b->Args({1, 768, 1});
  b->Unit(benchmark::kMicrosecond)->UseRealTime();
}
BENCHMARK_CAPTURE(run, cpu_forward, Mode::run, What::forward)->Apply(shapes);
BENCHMARK_CAPTURE(run, cpu_backward, Mode::run, What::backward)->Apply(shapes);
BENCHMARK_CAPTURE(run, reference_forward, Mode::reference, What::forward)
    ->Args({4096, 192, 1})
    ->Unit(benchmark::kMicrosecond)
    ->UseRealTime();
BENCHMARK_CAPTURE(run, reference_backward, Mode::reference, What::backward)
    ->Args({4096, 192, 1})
    ->Unit(benchmark::kMicrosecond)
    ->UseRealTime();

}  // namespace
}  // namespace sluice

BENCHMARK_MAIN();
