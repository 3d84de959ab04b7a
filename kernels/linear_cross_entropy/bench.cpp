// kernels/linear_cross_entropy/bench.cpp -- forward, and forward with backward, of both back ends.
#include "kernels/bench/bench.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"

namespace sluice {
namespace {

enum class What : uint8_t { forward, both };

// Arguments: N, D, V, threads.
void run(benchmark::State& state, Mode mode, What what) {
  const int64_t N = state.range(0), D = state.range(1), V = state.range(2);
  ThreadPool pool(int(state.range(3)));
  Arena arena(Device::cpu, 256 << 20);
  const Context ctx{.mode = mode, .arena = &arena, .threads = &pool};
  const Buffer h = bench::normal({N, D}, 1), w = bench::normal({V, D}, 2, 0, 0.1);
  const Buffer targets(DType::i32, {N});
  const Buffer dh(DType::f32, {N, D}), dw(DType::f32, {V, D}), lse(DType::f32, {N});
  const Buffer loss(DType::f64, {1}), scale(DType::f64, {1});
  for (int64_t n = 0; n < N; ++n) targets.view().as<int32_t>()[n] = int32_t(n % V);
  *scale.view().as<double>() = 1.0 / double(N);
  for ([[maybe_unused]] auto _ : state) {
    linear_cross_entropy_forward(ctx, {.h = h.view(),
                                       .w = w.view(),
                                       .targets = targets.view(),
                                       .loss_scale = scale.view(),
                                       .loss = loss.view(),
                                       .terms = {},
                                       .lse = lse.view(),
                                       .nll = {}});
    if (what == What::forward) continue;
    linear_cross_entropy_backward(ctx, {.h = h.view(),
                                        .w = w.view(),
                                        .targets = targets.view(),
                                        .loss_scale = scale.view(),
                                        .lse = lse.view(),
                                        .dloss = scale.view(),
                                        .dh = {dh.view()},
                                        .dw = {dw.view()}});
  }
  // Four products of 2 N D V: logits twice, dh, dw.
  const double flop = (what == What::forward ? 2.0 : 8.0) * double(N) * double(D) * double(V);
  bench::report_flops(state, ctx, flop);
}

BENCHMARK_CAPTURE(run, cpu_forward, Mode::run, What::forward)
    ->Args({4096, 192, 2048, 2})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();
BENCHMARK_CAPTURE(run, cpu_both, Mode::run, What::both)
    ->Args({4096, 192, 2048, 1})
    ->Args({4096, 192, 2048, 2})
    ->Args({4096, 768, 32768, 2})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();
BENCHMARK_CAPTURE(run, reference_both, Mode::reference, What::both)
    ->Args({256, 192, 2048, 1})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

}  // namespace
}  // namespace sluice

BENCHMARK_MAIN();
