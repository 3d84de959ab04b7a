// kernels/bench/bench.h -- what the operators' benchmarks share: random inputs, and rates beside
// what this machine did in the same run.
//
// report_bytes: GB/s of what must be read and written, and its share of a copy that moves as many
// bytes (so it lies in the same cache). report_flops: GFLOP/s, and the share of plain products on
// the same number of threads.
#pragma once

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

#include "kernels/gemm/gemm.h"
#include "kernels/tensor/context.h"
#include "kernels/tensor/rng.h"

namespace sluice::bench {

inline Buffer normal(std::initializer_list<int64_t> shape, uint64_t seed, double mean = 0,
                     double stddev = 1) {
  Buffer b(DType::f32, shape);
  for (int64_t i = 0; i < b.view().numel(); ++i)
    b.view().as<float>()[i] = float(mean + stddev * random_normal(seed, uint64_t(i)));
  return b;
}

// Documents of equal length: [documents + 1] i32.
inline Buffer equal_documents(int64_t documents, int64_t tokens) {
  Buffer cu(DType::i32, {documents + 1});
  for (int64_t d = 0; d <= documents; ++d) cu.view().as<int32_t>()[d] = int32_t(d * tokens);
  return cu;
}

// Seconds of the fastest of some runs, a tenth of a second in all.
template <class Body>
double fastest(Body body) {
  using Clock = std::chrono::steady_clock;
  auto seconds = [](Clock::time_point since) {
    return std::chrono::duration<double>(Clock::now() - since).count();
  };
  body();
  double best = 1e9;
  const auto start = Clock::now();
  do {
    const auto begin = Clock::now();
    body();
    best = std::min(best, seconds(begin));
  } while (seconds(start) < 0.1);
  return best;
}

// Bytes read and written a second by a copy that moves `bytes` of them.
inline double copy_rate(const Context& ctx, double bytes) {
  constexpr int64_t kBlock = 1 << 16;
  const auto half = int64_t(bytes / 2);
  std::vector<char> from(size_t(half), 1), to(size_t(half), 0);
  const double s = fastest([&] {
    parallel_for(ctx, (half + kBlock - 1) / kBlock, [&](int64_t b) {
      std::memcpy(&to[size_t(b * kBlock)], &from[size_t(b * kBlock)],
                  size_t(std::min(kBlock, half - b * kBlock)));
    });
  });
  return 2 * double(half) / s;
}

// f32 FLOP/s of a product of 384 x 384 matrices on each of the context's threads.
inline double gemm_rate(const Context& ctx) {
  const int64_t n = 384, threads = ctx.threads ? ctx.threads->threads() : 1;
  const std::vector<float> a(size_t(n * n), 1), b(size_t(n * n), 1);
  std::vector<float> c(size_t(n * n * threads), 0);
  const double s = fastest([&] {
    parallel_for(ctx, threads, [&](int64_t t) {
      gemm<float>(Transpose::no, Transpose::yes, n, n, n, 1, a.data(), n, b.data(), n, 0,
                  &c[size_t(t * n * n)], n);
    });
  });
  return 2.0 * double(n * n * n * threads) / s;
}

inline benchmark::Counter a_second(double amount) {
  return benchmark::Counter(amount, benchmark::Counter::kIsIterationInvariantRate);
}
inline void report_bytes(benchmark::State& state, const Context& ctx, double bytes) {
  state.counters["GB/s"] = a_second(bytes * 1e-9);
  state.counters["of copy"] = a_second(bytes / copy_rate(ctx, bytes));
}
inline void report_flops(benchmark::State& state, const Context& ctx, double flops) {
  state.counters["GFLOP/s"] = a_second(flops * 1e-9);
  state.counters["of GEMM"] = a_second(flops / gemm_rate(ctx));
}

}  // namespace sluice::bench
