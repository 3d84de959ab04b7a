// kernels/muon/bench.cpp -- one step, in GFLOP/s of the Newton-Schulz products.
#include "kernels/bench/bench.h"
#include "kernels/muon/muon.h"

namespace sluice {
namespace {

// An iteration is a Gram matrix (2 s^2 l), its square (2 s^3) and a product with X (2 s^2 l).
void muon_step(benchmark::State& state) {
  const int64_t B = state.range(0), m = state.range(1), n = state.range(2);
  ThreadPool pool(int(state.range(3)));
  Arena arena(Device::cpu, 1 << 30);
  const Context ctx{.arena = &arena, .threads = &pool};
  const Buffer p = bench::normal({B, m, n}, 1), g = bench::normal({B, m, n}, 2), M(p.view());
  StepState step;
  step.step = 1;
  step.lr = 1e-3f;
  const Muon a{.param = p.view(), .grad = g.view(), .m = M.view(), .state = &step};
  for ([[maybe_unused]] auto _ : state) muon(ctx, a);
  const double s = double(std::min(m, n)), l = double(std::max(m, n));
  bench::report_flops(state, ctx, double(B * a.ns_steps) * (4 * s * s * l + 2 * s * s * s));
}

void shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"matrices", "rows", "columns", "threads"});
  for (int64_t threads : {1, 2})
    b->Args({1, 160, 160, threads})->Args({16, 80, 160, threads})->Args({1, 1024, 256, threads});
  b->Unit(benchmark::kMicrosecond)->UseRealTime();
}
BENCHMARK(muon_step)->Apply(shapes);

}  // namespace
}  // namespace sluice

BENCHMARK_MAIN();
