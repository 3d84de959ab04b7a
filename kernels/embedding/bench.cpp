// kernels/embedding/bench.cpp -- gathering rows and summing their gradients, in GB/s of what must
// move.
#include "kernels/bench/bench.h"
#include "kernels/embedding/embedding.h"

namespace sluice {
namespace {

// Forward reads and writes N rows; backward reads N and writes the table once.
void embedding(benchmark::State& state, bool backward) {
  const int64_t N = state.range(0), D = state.range(1), V = state.range(2);
  ThreadPool pool(int(state.range(3)));
  const Context ctx{.threads = &pool};
  const Buffer table = bench::normal({V, D}, 1), y = bench::normal({N, D}, 2);
  const Buffer dtable(table.view()), tokens(DType::i32, {N});
  for (int64_t n = 0; n < N; ++n)
    tokens.view().as<int32_t>()[n] = int32_t(random_u64(3, uint64_t(n)) % uint64_t(V));
  for ([[maybe_unused]] auto _ : state) {
    if (backward)
      embedding_backward(ctx, {.tokens = tokens.view(), .dy = y.view(), .dtable = {dtable.view()}});
    else
      embedding_forward(ctx, {.tokens = tokens.view(), .table = table.view(), .y = y.view()});
  }
  const double rows = double(y.view().bytes());
  bench::report_bytes(state, ctx, backward ? rows + double(table.view().bytes()) : 2 * rows);
}

void shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"N", "D", "V", "threads"});
  for (int64_t threads : {1, 2})
    b->Args({4096, 192, 2048, threads})->Args({4096, 1024, 32768, threads});
  b->Unit(benchmark::kMicrosecond)->UseRealTime();
}
BENCHMARK_CAPTURE(embedding, forward, false)->Apply(shapes);
BENCHMARK_CAPTURE(embedding, backward, true)->Apply(shapes);

}  // namespace
}  // namespace sluice

BENCHMARK_MAIN();
