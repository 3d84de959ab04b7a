// kernels/mla/bench.cpp -- both directions, in GFLOP/s of the causal half.
#include "kernels/bench/bench.h"
#include "kernels/mla/mla.h"

namespace sluice {
namespace {

// Per query and key seen: 2 (nope + rope) for the score and 2 V for the sum; backward makes the
// scores again and has four products more.
void mla(benchmark::State& state, bool backward) {
  const int64_t documents = state.range(0), T = state.range(1), H = state.range(2);
  const int64_t nope = state.range(3), rope = nope / 2, V = nope, N = documents * T;
  ThreadPool pool(int(state.range(4)));
  Arena arena(Device::cpu, 1 << 30);
  const Context ctx{.arena = &arena, .threads = &pool};
  const Buffer q = bench::normal({N, H, nope + rope}, 1), kv = bench::normal({N, H, nope + V}, 2);
  const Buffer k_rope = bench::normal({N, rope}, 3), d_o = bench::normal({N, H, V}, 4);
  const Buffer o(d_o.view()), lse(DType::f32, {N, H}), cu = bench::equal_documents(documents, T);
  const Buffer dq(q.view()), dkv(kv.view()), dk_rope(k_rope.view());
  const MlaForward f{.q = q.view(),
                     .kv = kv.view(),
                     .k_rope = k_rope.view(),
                     .cu_seqlens_q = cu.view(),
                     .cu_seqlens_k = cu.view(),
                     .o = o.view(),
                     .lse = lse.view()};
  mla_forward(ctx, f);
  for ([[maybe_unused]] auto _ : state) {
    if (backward)
      mla_backward(ctx, {.q = f.q,
                         .kv = f.kv,
                         .k_rope = f.k_rope,
                         .cu_seqlens_q = f.cu_seqlens_q,
                         .cu_seqlens_k = f.cu_seqlens_k,
                         .o = f.o,
                         .lse = f.lse,
                         .d_o = d_o.view(),
                         .dq = {dq.view()},
                         .dkv = {dkv.view()},
                         .dk_rope = {dk_rope.view()}});
    else
      mla_forward(ctx, f);
  }
  const double pairs = double(documents * H) * double(T) * double(T + 1) / 2;
  const double width = double(nope + rope), v = double(V);
  bench::report_flops(state, ctx, pairs * (backward ? 6 * width + 4 * v : 2 * width + 2 * v));
}

void shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"documents", "tokens", "heads", "nope", "threads"});
  for (int64_t threads : {1, 2})
    b->Args({8, 512, 4, 32, threads})->Args({1, 4096, 1, 128, threads});
  b->Args({1, 4096, 3, 128, 2})->Args({64, 64, 4, 32, 2});
  b->Unit(benchmark::kMillisecond)->UseRealTime();
}
BENCHMARK_CAPTURE(mla, forward, false)->Apply(shapes);
BENCHMARK_CAPTURE(mla, backward, true)->Apply(shapes);

}  // namespace
}  // namespace sluice

BENCHMARK_MAIN();
