// kernels/moe/grouped_linear/bench.cpp -- with many experts and with one (a dense product),
// GFLOP/s.
#include "kernels/bench/bench.h"
#include "kernels/moe/grouped_linear/grouped_linear.h"

namespace sluice {
namespace {

enum class What : uint8_t { forward, backward };

// Arguments: R, E, D, F, threads. Loads as of a trained router: expert e has a share of 1 + e % 3.
void grouped(benchmark::State& state, What what) {
  const int64_t R = state.range(0), E = state.range(1), D = state.range(2), F = state.range(3);
  ThreadPool pool(int(state.range(4)));
  const Context ctx{.threads = &pool};
  const Buffer x = bench::normal({R, D}, 1), w = bench::normal({E, F, D}, 2);
  const Buffer y = bench::normal({R, F}, 3);
  const Buffer dx(DType::f32, {R, D}), dw(DType::f32, {E, F, D}), offsets(DType::i32, {E + 1});
  int64_t shares = 0, sum = 0;
  for (int64_t e = 0; e < E; ++e) shares += 1 + e % 3;
  for (int64_t e = 0; e < E; ++e)
    offsets.view().as<int32_t>()[e + 1] = int32_t((sum += 1 + e % 3) * R / shares);
  for ([[maybe_unused]] auto _ : state) {
    if (what == What::forward)
      grouped_linear_forward(
          ctx, {.x = x.view(), .w = w.view(), .offsets = offsets.view(), .y = y.view()});
    else
      grouped_linear_backward(ctx, {.x = x.view(),
                                    .w = w.view(),
                                    .offsets = offsets.view(),
                                    .dy = y.view(),
                                    .dx = {dx.view()},
                                    .dw = {dw.view()}});
  }
  bench::report_flops(state, ctx, (what == What::forward ? 2.0 : 4.0) * double(R * D * F));
}

// The quickstart's gate+up and down, a wider model, and decoding (two rows); each with one expert
// as well: what grouping costs is the difference.
void shapes(benchmark::internal::Benchmark* b) {
  for (int64_t E : {1, 8}) {
    b->Args({8192, E, 160, 128, 2})->Args({8192, E, 64, 160, 2})->Args({2, E, 160, 128, 1});
    b->Args({8192, E, 768, 512, 2});
  }
  b->Args({8192, 64, 768, 512, 2});
  b->Unit(benchmark::kMicrosecond)->UseRealTime();
}
BENCHMARK_CAPTURE(grouped, forward, What::forward)->Apply(shapes);
BENCHMARK_CAPTURE(grouped, backward, What::backward)->Apply(shapes);

}  // namespace
}  // namespace sluice

BENCHMARK_MAIN();
