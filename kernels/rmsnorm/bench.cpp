// kernels/rmsnorm/bench.cpp -- forward and backward of both back ends, in GB/s of what must move.
#include "kernels/bench/bench.h"
#include "kernels/rmsnorm/rmsnorm.h"

namespace sluice {
namespace {

enum class What : uint8_t { forward, backward };

// Arguments: N, C, threads.
void run(benchmark::State& state, Mode mode, What what) {
  const int64_t N = state.range(0), C = state.range(1);
  ThreadPool pool(int(state.range(2)));
  Arena arena(Device::cpu, 64 << 20);
  const Context ctx{.mode = mode, .arena = &arena, .threads = &pool};
  const Buffer x = bench::normal({N, C}, 1), w = bench::normal({C}, 2);
  const Buffer y = bench::normal({N, C}, 3);
  const Buffer dx(DType::f32, {N, C}), dw(DType::f32, {C}), rstd = bench::normal({N}, 4);
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
  bench::report_bytes(state, ctx, bytes);
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
