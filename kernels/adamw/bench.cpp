// kernels/adamw/bench.cpp -- one step, in GB/s of what must move.
#include "kernels/bench/bench.h"
#include "kernels/adamw/adamw.h"

namespace sluice {
namespace {

// Reads param, grad, m and v, writes all but grad.
void adamw_step(benchmark::State& state) {
  const int64_t n = state.range(0);
  ThreadPool pool(int(state.range(1)));
  const Context ctx{.threads = &pool};
  const Buffer p = bench::normal({n}, 1), g = bench::normal({n}, 2), m(p.view()), v(p.view());
  StepState step;
  step.step = 1;
  step.lr = 1e-3f;
  for ([[maybe_unused]] auto _ : state)
    adamw(ctx, {.param = p.view(),
                .grad = g.view(),
                .m = m.view(),
                .v = v.view(),
                .state = &step,
                .weight_decay = 0.1});
  bench::report_bytes(state, ctx, 7.0 * double(p.view().bytes()));
}

BENCHMARK(adamw_step)
    ->ArgNames({"n", "threads"})
    ->ArgsProduct({{1 << 18, 1 << 21, 1 << 24}, {1, 2}})
    ->Unit(benchmark::kMicrosecond)
    ->UseRealTime();

}  // namespace
}  // namespace sluice

BENCHMARK_MAIN();
