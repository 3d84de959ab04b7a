// kernels/segment_scan/reference.cpp -- plain loops: the definition.
#include "kernels/segment_scan/segment_scan.h"
#include "kernels/tensor/float_dispatch.h"

namespace sluice::reference {

template <class T>
static void scan(const SegmentScan& a, const Tensor& next) {
  const int64_t HV = a.state.dim(0), K = a.state.dim(1), V = a.state.dim(2), KV = K * V;
  T* S = a.state.as<T>();
  for (int64_t step = 0; step < a.count; ++step) {
    const int64_t p = a.reverse ? a.first + a.count - 1 - step : a.first + step;
    const T *B = a.operators.row<T>(p), *A = B + HV * KV;
    for (int64_t h = 0; h < HV; ++h)
      for (int64_t i = 0; i < K; ++i)
        for (int64_t v = 0; v < V; ++v) {
          T sum = B[h * KV + i * V + v];
          for (int64_t j = 0; step > 0 && j < K; ++j)
            sum += A[h * K * K + (a.reverse ? j * K + i : i * K + j)] * S[h * KV + j * V + v];
          next.as<T>()[h * KV + i * V + v] = sum;
        }
    copy(next, a.state);
  }
}

void segment_scan(const Context&, const SegmentScan& a, const Tensor& next) {
  for_float_type(a.state, [&](auto zero) { scan<decltype(zero)>(a, next); });
}

}  // namespace sluice::reference
