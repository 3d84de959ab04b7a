// tests/kernels/segment_scan_gpu_test.cpp -- states between segments in f32, against f64; bf16 to
// f32 and back.
#include <gtest/gtest.h>

#include "kernels/cast/cast.h"
#include "kernels/segment_scan/segment_scan.h"
#include "tests/support/cpu_context.h"
#include "tests/support/gpu_problem.h"

namespace sluice::test {
namespace {

using SegmentScanGpu = GpuTest;

Buffer on_gpu(const Tensor& host) {
  Tensor like = host;
  like.device = Device::cuda;
  Buffer to(like);
  copy(host, to.view());
  return to;
}

TEST_F(SegmentScanGpu, IsTheDefinition) {
  GpuContext& gpu = GpuContext::shared();
  for (const auto& [K, V] : {std::pair<int64_t, int64_t>{128, 128}, {5, 3}, {64, 40}}) {
    constexpr int64_t P = 4, HV = 3;
    const Buffer narrow(DType::f32, {P, HV * K * (V + K)}), wide(DType::f64, {P, HV * K * (V + K)});
    for (int64_t i = 0; i < narrow.view().numel(); ++i) {
      const float x = float(random_normal(1, uint64_t(i)) / std::sqrt(double(K)));
      narrow.view().as<float>()[i] = x;
      wide.view().as<double>()[i] = x;
    }
    const Buffer operators = on_gpu(narrow.view());
    const Buffer want(DType::f64, {HV, K, V}), host(DType::f32, {HV, K, V});
    const Buffer got = on_gpu(host.view());
    for (const bool reverse : {false, true})
      for (const auto& [first, count] :
           {std::pair<int64_t, int64_t>{0, 4}, {1, 2}, {3, 1}, {2, 0}}) {
        segment_scan(CpuContext(Mode::reference),
                     {wide.view(), first, count, reverse, want.view()});
        segment_scan(gpu, {operators.view(), first, count, reverse, got.view()});
        SLUICE_CUDA(cudaDeviceSynchronize());
        copy(got.view(), host.view());
        for (int64_t i = 0; i < host.view().numel(); ++i)  // sums of K terms, three times
          ASSERT_NEAR(host.view().as<float>()[i], want.view().as<double>()[i], 1e-5) << i;
      }
  }
}

TEST_F(SegmentScanGpu, Identities) {
  const Buffer t = on_gpu(Buffer(DType::f32, {3, 40, 40}).view()), host(DType::f32, {3, 40, 40});
  set_identities(GpuContext::shared(), t.view());
  SLUICE_CUDA(cudaDeviceSynchronize());
  copy(t.view(), host.view());
  for (int64_t i = 0; i < host.view().numel(); ++i)
    ASSERT_EQ(host.view().as<float>()[i], i / 40 % 40 == i % 40 ? 1 : 0) << i;
}

TEST_F(SegmentScanGpu, WidenedAndCastBackIsTheSame) {
  for (const int64_t n : {0, 1, 7, 8, 1001}) {
    const Buffer host(DType::bf16, {n}), back(DType::bf16, {n});
    for (int64_t i = 0; i < n; ++i)
      static_cast<uint16_t*>(host.view().data)[i] = to_bf16(random_normal(3, uint64_t(i)));
    const Buffer narrow = on_gpu(host.view()), wide(DType::f32, {n}, Device::cuda);
    const Buffer again(DType::bf16, {n}, Device::cuda);
    widen(GpuContext::shared(), {narrow.view(), wide.view()});
    cast(GpuContext::shared(), {wide.view(), again.view()});
    SLUICE_CUDA(cudaDeviceSynchronize());
    copy(again.view(), back.view());
    EXPECT_TRUE(same_bits(host.view(), back.view())) << n;
  }
}

}  // namespace
}  // namespace sluice::test
