// trainer/bench/ops_gpu.h -- what the program bench_ops_gpu makes its rows with.
//
// bf16 tokens of random values. `floor` is the least bytes (every input read once, every output
// written once) over the copy's rate, or the products' operations over the product's rate: time can
// hardly be less, and `share` is floor over time.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <vector>

#include "kernels/base/cuda_check.h"
#include "kernels/tensor/buffer.h"
#include "kernels/tensor/context.h"

namespace sluice {

inline double median_ms(CUstream_st* stream, const std::function<void()>& body) {
  constexpr int kWarm = 3, kRuns = 30;
  cudaEvent_t begin, end;
  SLUICE_CUDA(cudaEventCreate(&begin));
  SLUICE_CUDA(cudaEventCreate(&end));
  std::vector<float> ms;
  for (int i = 0; i < kWarm + kRuns; ++i) {
    SLUICE_CUDA(cudaEventRecord(begin, stream));
    body();
    SLUICE_CUDA(cudaEventRecord(end, stream));
    SLUICE_CUDA(cudaEventSynchronize(end));
    float t = 0;
    SLUICE_CUDA(cudaEventElapsedTime(&t, begin, end));
    if (i >= kWarm) ms.push_back(t);
  }
  SLUICE_CUDA(cudaEventDestroy(begin));
  SLUICE_CUDA(cudaEventDestroy(end));
  std::nth_element(ms.begin(), ms.begin() + kRuns / 2, ms.end());
  return double(ms[kRuns / 2]);
}

// Random floats within [1, 2) of either sign, as bf16 or f32.
inline Buffer noise(DType dtype, std::initializer_list<int64_t> shape) {
  const Buffer host(dtype, shape);
  for (int64_t i = 0; i < host.view().numel(); ++i) {
    const auto bits = uint32_t(uint64_t(i) * 2654435761u >> 8);
    if (dtype == DType::bf16)
      static_cast<uint16_t*>(host.view().data)[i] = uint16_t(0x3f80 | (bits & 0x807f));
    else
      host.view().as<float>()[i] = float(int(bits & 0xffff) - 0x8000) / 0x4000;
  }
  Buffer b(dtype, shape, Device::cuda);
  copy(host.view(), b.view());
  return b;
}
inline Buffer empty(DType dtype, std::initializer_list<int64_t> shape) {
  return Buffer(dtype, shape, Device::cuda);
}
inline Buffer integers(const std::vector<int32_t>& values) {
  Buffer b(DType::i32, {int64_t(values.size())}, Device::cuda);
  copy(make_tensor(const_cast<int32_t*>(values.data()), DType::i32, Device::cpu,
                   {int64_t(values.size())}),
       b.view());
  return b;
}

struct Bench {
  Context ctx;
  double copy_rate, gemm_rate;  // bytes, operations a millisecond

  // Work in bytes and in operations of products.
  void row(const char* name, double bytes, double operations,
           const std::function<void()>& body) const {
    const double ms = median_ms(ctx.stream, body),
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
