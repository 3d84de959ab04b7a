// trainer/loop/measure.cpp -- the best of ten.
#include "trainer/loop/measure.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "kernels/gemm/gemm.h"

namespace sluice {

double monotonic_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double measure_gemm_rate(const Context& ctx, int threads) {
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

}  // namespace sluice
