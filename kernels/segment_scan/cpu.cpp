// kernels/segment_scan/cpu.cpp -- a product a segment and head.
#include <algorithm>

#include "kernels/gemm/gemm.h"
#include "kernels/segment_scan/segment_scan.h"
#include "kernels/tensor/float_dispatch.h"

namespace sluice::cpu {

template <class T>
static void scan(const SegmentScan& a, const Tensor& next, int64_t h) {
  const int64_t HV = a.state.dim(0), K = a.state.dim(1), V = a.state.dim(2), KV = K * V;
  T *S = a.state.as<T>() + h * KV, *to = next.as<T>() + h * KV;
  for (int64_t step = 0; step < a.count; ++step) {
    const int64_t p = a.reverse ? a.first + a.count - 1 - step : a.first + step;
    const T* B = a.operators.row<T>(p) + h * KV;
    const T* A = a.operators.row<T>(p) + HV * KV + h * K * K;
    std::copy_n(B, KV, to);
    if (step > 0)
      gemm<T>(a.reverse ? Transpose::yes : Transpose::no, Transpose::no, K, V, K, 1, A, K, S, V, 1,
              to, V);
    std::copy_n(to, KV, S);
  }
}

void segment_scan(const Context& ctx, const SegmentScan& a, const Tensor& next) {
  for_float_type(a.state, [&](auto zero) {
    parallel_for(ctx, a.state.dim(0), [&](int64_t h) { scan<decltype(zero)>(a, next, h); });
  });
}

}  // namespace sluice::cpu
