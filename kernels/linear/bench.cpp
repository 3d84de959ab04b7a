// kernels/linear/bench.cpp -- forward and backward of both back ends, in GFLOP/s.
#include "kernels/bench/bench.h"
#include "kernels/linear/linear.h"

namespace sluice {
namespace {

enum class What : uint8_t { forward, backward };

// Arguments: N, D, F, threads.
void run(benchmark::State& state, Mode mode, What what) {
  const int64_t N = state.range(0), D = state.range(1), F = state.range(2);
  ThreadPool pool(int(state.range(3)));
  const Context ctx{.mode = mode, .threads = &pool};
  const Buffer x = bench::normal({N, D}, 1), w = bench::normal({F, D}, 2);
  const Buffer y = bench::normal({N, F}, 3);
  const Buffer dx(DType::f32, {N, D}), dw(DType::f32, {F, D});
  for ([[maybe_unused]] auto _ : state) {
    if (what == What::forward)
      linear_forward(ctx, {.x = x.view(), .w = w.view(), .y = y.view()});
    else
      linear_backward(
          ctx,
          {.x = x.view(), .w = w.view(), .dy = y.view(), .dx = {dx.view()}, .dw = {dw.view()}});
  }
  const double flop = (what == What::forward ? 2.0 : 4.0) * double(N) * double(D) * double(F);
  bench::report_flops(state, ctx, flop);
  state.counters["GB/s of w"] = bench::a_second(double(w.view().bytes()) * 1e-9);
}

// Training shapes at one and two threads, then decoding: one token is bound by reading w.
void shapes(benchmark::internal::Benchmark* b) {
  for (int64_t threads : {1, 2})
    for (int64_t F : {512, 1024}) b->Args({4096, 192, F, threads});
  b->Args({4096, 768, 2048, 2})->Args({64, 192, 1024, 2})->Args({8, 768, 2048, 2});
  for (int64_t threads : {1, 2}) b->Args({1, 768, 2048, threads});
  b->Unit(benchmark::kMicrosecond)->UseRealTime();
}
BENCHMARK_CAPTURE(run, cpu_forward, Mode::run, What::forward)->Apply(shapes);
// Decoding and prefill of a small model, one thread: rows together against rows by themselves.
void rows(benchmark::internal::Benchmark* b) {
  for (int64_t N : {1, 2, 4, 8, 16, 32, 64, 256})
    b->Args({N, 160, 896, 1})->Args({N, 768, 2048, 1});
  b->Unit(benchmark::kMicrosecond)->UseRealTime();
}
BENCHMARK_CAPTURE(run, blas, Mode::run, What::forward)->Apply(rows);
BENCHMARK_CAPTURE(run, batch_invariant, Mode::batch_invariant, What::forward)->Apply(rows);
BENCHMARK_CAPTURE(run, cpu_backward, Mode::run, What::backward)->Apply(shapes);
BENCHMARK_CAPTURE(run, reference_forward, Mode::reference, What::forward)
    ->Args({256, 192, 512, 1})
    ->Unit(benchmark::kMicrosecond)
    ->UseRealTime();
BENCHMARK_CAPTURE(run, reference_backward, Mode::reference, What::backward)
    ->Args({256, 192, 512, 1})
    ->Unit(benchmark::kMicrosecond)
    ->UseRealTime();

}  // namespace
}  // namespace sluice

BENCHMARK_MAIN();
