// kernels/bench/gpu.h -- what the programs that time kernels on a GPU share.
//
// A row's floor is the least bytes that must move (every input read once, every output written
// once) over the rate of a copy in the same run.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <vector>

#include "kernels/base/cuda_check.h"
#include "kernels/tensor/buffer.h"

namespace sluice::bench {

// Of 30 runs after 3.
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

// Bytes read and written a millisecond by a copy of 1 GiB.
inline double copy_rate(CUstream_st* stream) {
  const int64_t bytes = int64_t(1) << 30;
  const Buffer from(DType::u8, {bytes}, Device::cuda), to(DType::u8, {bytes}, Device::cuda);
  return 2 * double(bytes) / median_ms(stream, [&] {
           SLUICE_CUDA(cudaMemcpyAsync(to.view().data, from.view().data, size_t(bytes),
                                       cudaMemcpyDeviceToDevice, stream));
         });
}

inline Buffer on_gpu(const Buffer& host) {
  Tensor like = host.view();
  like.device = Device::cuda;
  Buffer b(like);
  copy(host.view(), b.view());
  return b;
}

// About N(0, 1), bf16 or f32, from the sum of four random bytes. Repeats after a prime number of
// elements.
inline Buffer noise(DType dtype, std::initializer_list<int64_t> shape, uint64_t seed = 1) {
  constexpr int64_t kPeriod = 1299709;
  const Buffer host(dtype, shape);
  const int64_t n = host.view().numel(), size = size_of(dtype);
  auto* to = static_cast<char*>(host.view().data);
  uint64_t x = seed * 0x9e3779b97f4a7c15ull + 1;
  for (int64_t i = 0; i < std::min(n, kPeriod); ++i) {
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    const int sum = int(x >> 56) + int(x >> 48 & 255) + int(x >> 40 & 255) + int(x >> 32 & 255);
    const float value = float(sum - 510) / 148;
    // Little endian: the upper half of a float is its bf16, the rest cut off.
    std::memcpy(to + i * size, reinterpret_cast<const char*>(&value) + sizeof value - size,
                size_t(size));
  }
  for (int64_t i = kPeriod; i < n; i += kPeriod)
    std::memcpy(to + i * size, to, size_t(std::min(kPeriod, n - i) * size));
  return on_gpu(host);
}
inline Buffer constant(std::initializer_list<int64_t> shape, float value) {
  const Buffer host(DType::f32, shape);
  std::fill_n(host.view().as<float>(), host.view().numel(), value);
  return on_gpu(host);
}
inline Buffer integers(const std::vector<int32_t>& values) {
  const Buffer host(DType::i32, {int64_t(values.size())});
  std::copy(values.begin(), values.end(), host.view().as<int32_t>());
  return on_gpu(host);
}
inline Buffer empty(DType dtype, std::initializer_list<int64_t> shape) {
  return Buffer(dtype, shape, Device::cuda);
}

}  // namespace sluice::bench
