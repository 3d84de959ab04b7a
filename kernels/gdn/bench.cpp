// kernels/gdn/bench.cpp -- time of the chunked back end: bench_gdn [--benchmark_filter=...].
#include "kernels/bench/bench.h"
#include "kernels/gdn/gdn.h"

namespace sluice {
namespace {

// Arguments: documents, tokens a document, heads, K = V, threads. Gates as a layer starts:
// softplus, A = e^1, dt_bias about -4.
void gdn(benchmark::State& state, bool backward, bool saves) {
  const int64_t documents = state.range(0), T = state.range(1), H = state.range(2),
                D = state.range(3);
  const int64_t N = documents * T;
  const Buffer q = bench::normal({N, H, D}, 1), k = bench::normal({N, H, D}, 2),
               v = bench::normal({N, H, D}, 3);
  const Buffer g = bench::normal({N, H}, 4), beta = bench::normal({N, H}, 5),
               A = bench::normal({H}, 6, 1);
  const Buffer bias = bench::normal({H}, 7, -4), d_o = bench::normal({N, H, D}, 8);
  const Buffer cu = bench::equal_documents(documents, T), S(DType::f32, {documents, H, D, D});
  const Buffer o(v.view()), dq(q.view()), dk(q.view()), dv(v.view()), dg(g.view());
  const Buffer dbeta(beta.view()), dA(A.view()), dbias(bias.view());

  Arena arena(Device::cpu, 256 << 20);
  ThreadPool pool(int(state.range(4)));
  const Context ctx{.arena = &arena, .threads = &pool};
  GdnForward f{.q = q.view(),
               .k = k.view(),
               .v = v.view(),
               .g = g.view(),
               .beta = beta.view(),
               .A_log = A.view(),
               .dt_bias = bias.view(),
               .cu_seqlens = cu.view(),
               .initial_state = {},
               .o = o.view(),
               .final_state = {},
               .saved = {},
               .params = {}};
  const Buffer saved(DType::u8, {gdn_saved_bytes(ctx, f)});
  if (saves)
    f.saved = saved.view();
  else
    f.initial_state = f.final_state = S.view();
  const GdnBackward b{.q = f.q,
                      .k = f.k,
                      .v = f.v,
                      .g = f.g,
                      .beta = f.beta,
                      .A_log = f.A_log,
                      .dt_bias = f.dt_bias,
                      .cu_seqlens = f.cu_seqlens,
                      .initial_state = {},
                      .saved = saved.view(),
                      .d_o = d_o.view(),
                      .dfinal_state = {},
                      .dq = {dq.view()},
                      .dk = {dk.view()},
                      .dv = {dv.view()},
                      .dg = {dg.view()},
                      .dbeta = {dbeta.view()},
                      .dA_log = {dA.view()},
                      .ddt_bias = {dbias.view()},
                      .dinitial_state = {},
                      .params = {}};
  for (auto _ : state) {
    gdn_forward(ctx, f);
    if (backward) gdn_backward(ctx, b);
  }
  state.counters["tokens/s"] = bench::a_second(double(N));
}

void train_shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"documents", "tokens", "heads", "dim", "threads"});
  b->Args({8, 512, 4, 48, 1})->Args({8, 512, 4, 48, 2})->Args({1, 4096, 8, 128, 2});
  b->Unit(benchmark::kMillisecond)->UseRealTime();
}
void decode_shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"documents", "tokens", "heads", "dim", "threads"});
  b->Args({1, 1, 4, 48, 1})->Args({16, 1, 32, 128, 2})->Args({16, 8, 32, 128, 2});
  b->Unit(benchmark::kMicrosecond)->UseRealTime();
}

BENCHMARK_CAPTURE(gdn, forward, false, true)->Apply(train_shapes);
BENCHMARK_CAPTURE(gdn, forward_and_backward, true, true)->Apply(train_shapes);
BENCHMARK_CAPTURE(gdn, decode, false, false)->Apply(decode_shapes);

}  // namespace
}  // namespace sluice

BENCHMARK_MAIN();
