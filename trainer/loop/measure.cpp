// trainer/loop/measure.cpp -- the best of ten.
#include "trainer/loop/measure.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "kernels/gemm/cuda_gemm.h"
#include "kernels/gemm/gemm.h"
#include "kernels/tensor/buffer.h"
#include "kernels/tensor/fill.h"

namespace sluice {

double monotonic_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

#ifdef SLUICE_CUDA_BUILD
// Of random values: zeros would draw less power and be faster.
static Buffer random_bf16(int64_t n) {
  const Buffer host(DType::bf16, {n, n});
  for (int64_t i = 0; i < n * n; ++i)  // within [1, 2), either sign
    static_cast<uint16_t*>(host.view().data)[i] =
        uint16_t(0x3f80 | (i * 2654435761u >> 8 & 0x807f));
  Buffer b(DType::bf16, {n, n}, Device::cuda);
  copy(host.view(), b.view());
  return b;
}

static double measure_cuda_gemm_rate(const Context& ctx) {
  const int64_t n = 8192, runs = 10;
  const Buffer a = random_bf16(n), b = random_bf16(n), c(a.view());
  const Buffer workspace(DType::u8, {kGemmWorkspaceBytes}, Device::cuda);
  const Buffer wait(DType::u8, {1});
  const auto once = [&] {
    ctx.gemm->run(ctx, Transpose::no, a.view(), Transpose::yes, b.view(), {c.view()},
                  workspace.view());
  };
  const auto synchronize = [&] { copy(workspace.view().rows(0, 1), wait.view()); };
  for (int64_t i = 0; i < 3; ++i) once();
  synchronize();
  const double begin = monotonic_seconds();
  for (int64_t i = 0; i < runs; ++i) once();
  synchronize();
  return 2.0 * double(n * n * n) * double(runs) / (monotonic_seconds() - begin);
}
#endif

double measure_gemm_rate(const Context& ctx, int threads) {
#ifdef SLUICE_CUDA_BUILD
  if (ctx.device == Device::cuda) return measure_cuda_gemm_rate(ctx);
#endif
  const int64_t n = 384;
  std::vector<float> a(size_t(n * n), 1), b(size_t(n * n), 1), c(size_t(n * n * threads), 0);
  auto once = [&] {
    parallel_for(ctx, threads, [&](int64_t t) {
      gemm<float>(Transpose::no, Transpose::yes, n, n, n, 1, a.data(), n, b.data(), n, 0,
                  &c[size_t(t * n * n)], n);
    });
  };
  once();
  double best = 1e9;
  for (int i = 0; i < 10; ++i) {
    const double begin = monotonic_seconds();
    once();
    best = std::min(best, monotonic_seconds() - begin);
  }
  return 2.0 * double(n * n * n) * threads / best;
}

double measure_copy_rate(const Context& ctx) {
  SLUICE_CHECK(ctx.device == Device::cuda, "the copy is the GPU's");
  constexpr int64_t kBytes = int64_t(1) << 29, kRuns = 10;
  const Buffer a(DType::u8, {kBytes}, ctx.device), b(DType::u8, {kBytes}, ctx.device);
  const Buffer wait(DType::u8, {1});
  const auto synchronize = [&] { copy(b.view().rows(0, 1), wait.view()); };
  copy_in_order(ctx, a.view(), b.view());
  synchronize();
  const double begin = monotonic_seconds();
  for (int64_t i = 0; i < kRuns; ++i) copy_in_order(ctx, a.view(), b.view());
  synchronize();
  return 2.0 * double(kBytes * kRuns) / (monotonic_seconds() - begin);
}

}  // namespace sluice
