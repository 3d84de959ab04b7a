// kernels/bench/recurrence_cpu.h -- the benchmarks of a chunked recurrence on the CPU.
#pragma once

#include <string>

#include "kernels/bench/bench.h"
#include "kernels/bench/recurrence.h"

namespace sluice::bench {

enum class Work : uint8_t {
  forward,               // that keeps what backward needs
  forward_and_backward,  //
  decode,                // from states to states
};

// Arguments: documents, tokens a document, heads, K = V, threads. Gates as a layer starts:
// softplus, A = e^1, dt_bias about -4.
template <class Op>
void run_recurrence(benchmark::State& state, Work work) {
  const RecurrenceShape s{state.range(0), state.range(1), state.range(2), state.range(3)};
  const Recurrence<Op> r(
      s, [](auto shape, uint64_t seed) { return normal(shape, seed); },
      [](auto shape, float value) { return normal(shape, 7, value, 0); }, 1, -4,
      equal_documents(s.documents, s.tokens));
  const Buffer S(DType::f32, {s.documents, s.heads, s.dim, s.dim});
  Arena arena(Device::cpu, 256 << 20);
  ThreadPool pool(int(state.range(4)));
  const Context ctx{.arena = &arena, .threads = &pool};
  typename Op::Forward f = r.forward({});
  const Buffer saved(DType::u8, {Op::saved_bytes(ctx, f)});
  if (work == Work::decode)
    f.initial_state = f.final_state = S.view();
  else
    f.saved = saved.view();
  const typename Op::Backward b = r.backward(f);
  for (auto _ : state) {
    Op::forward(ctx, f);
    if (work == Work::forward_and_backward) Op::backward(ctx, b);
  }
  state.counters["tokens/s"] = a_second(double(s.N()));
}

template <class Op>
bool register_recurrence(const std::string& name) {
  const auto add = [&](const char* what, Work work) {
    return benchmark::RegisterBenchmark((name + "/" + what).c_str(), run_recurrence<Op>, work)
        ->ArgNames({"documents", "tokens", "heads", "dim", "threads"})
        ->UseRealTime();
  };
  for (const auto& [what, work] : {std::pair{"forward", Work::forward},
                                   std::pair{"forward_and_backward", Work::forward_and_backward}})
    add(what, work)
        ->Args({8, 512, 4, 48, 1})
        ->Args({8, 512, 4, 48, 2})
        ->Args({1, 4096, 8, 128, 2})
        ->Unit(benchmark::kMillisecond);
  add("decode", Work::decode)
      ->Args({1, 1, 4, 48, 1})
      ->Args({16, 1, 32, 128, 2})
      ->Args({16, 8, 32, 128, 2})
      ->Unit(benchmark::kMicrosecond);
  return true;
}

}  // namespace sluice::bench
