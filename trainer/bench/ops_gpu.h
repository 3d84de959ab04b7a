// trainer/bench/ops_gpu.h -- what the program bench_ops_gpu makes its rows with.
//
// bf16 tokens of random values. `floor` is the least bytes (every input read once, every output
// written once) over the copy's rate, or the products' operations over the product's rate: time can
// hardly be less, and `share` is floor over time.
#pragma once

#include <cstdio>

#include "kernels/bench/gpu.h"
#include "kernels/tensor/context.h"

namespace sluice {

using bench::empty;
using bench::integers;
using bench::noise;

struct Bench {
  Context ctx;
  double copy_rate, gemm_rate;  // bytes, operations a millisecond

  // Work in bytes and in operations of products.
  void row(const char* name, double bytes, double operations,
           const std::function<void()>& body) const {
    const double ms = bench::median_ms(ctx.stream, body),
                 floor = std::max(bytes / copy_rate, operations / gemm_rate);
    std::printf("%-44s %8.3f ms  floor %7.3f  share %4.0f %%", name, ms, floor, 100 * floor / ms);
    if (operations > 0)
      std::printf("  %6.0f TFLOP/s\n", operations / ms / 1e9);
    else
      std::printf("  %6.0f GB/s\n", bytes / ms / 1e6);
  }
};

constexpr DType kT = DType::bf16, kS = DType::f32;

// A mixture of experts: what is around its products, and those beside dense ones.
void moe_ops(const Bench& b, int64_t N, int64_t D);

}  // namespace sluice
