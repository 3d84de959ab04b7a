// kernels/moe/dispatch/reference.cpp -- plain loops in the order of the formula; never optimised.
#include "kernels/moe/dispatch/dispatch.h"
#include "kernels/tensor/float_dispatch.h"

namespace sluice::reference {

void dispatch_plan(const Context&, const DispatchPlan& a, const Tensor&) {
  const int64_t R = a.experts.numel(), E = a.offsets.dim(0) - 1;
  int32_t row = 0;
  a.offsets.as<int32_t>()[0] = 0;
  for (int64_t e = 0; e < E; ++e) {
    const int32_t begin = row;
    for (int64_t i = 0; i < R; ++i)
      if (a.experts.as<int32_t>()[i] == e) a.place.as<int32_t>()[i] = row++;
    a.offsets.as<int32_t>()[e + 1] = row;
    if (a.counts) a.counts.as<int64_t>()[e] += row - begin;
  }
}

void dispatch_forward(const Context&, const DispatchForward& a) {
  for_float_type(a.x, [&]<class T>(T) {
    for (int64_t n = 0; n < a.x.dim(0); ++n)
      for (int64_t j = 0; j < a.place.dim(1); ++j)
        for (int64_t d = 0; d < a.x.dim(1); ++d)
          a.xs.row<T>(a.place.row<int32_t>(n)[j])[d] = a.x.row<T>(n)[d];
  });
}

void dispatch_backward(const Context&, const DispatchBackward& a) {
  for_float_type(a.dxs, [&]<class T>(T) {
    for (int64_t n = 0; n < a.dx.t.dim(0); ++n)
      for (int64_t d = 0; d < a.dxs.dim(1); ++d) {
        T sum = 0;
        for (int64_t j = 0; j < a.place.dim(1); ++j)
          sum += a.dxs.row<T>(a.place.row<int32_t>(n)[j])[d];
        put(a.dx.t.row<T>(n)[d], sum, a.dx.add);
      }
  });
}

void combine_forward(const Context&, const CombineForward& a) {
  for_float_type(a.y, [&]<class T>(T) {
    for (int64_t n = 0; n < a.y.dim(0); ++n)
      for (int64_t d = 0; d < a.y.dim(1); ++d) {
        T sum = 0;
        for (int64_t j = 0; j < a.place.dim(1); ++j)
          sum += a.weights.row<T>(n)[j] * a.ys.row<T>(a.place.row<int32_t>(n)[j])[d];
        a.y.row<T>(n)[d] = sum;
      }
  });
}

void combine_backward(const Context&, const CombineBackward& a) {
  const int64_t D = a.dy.dim(1);
  for_float_type(a.dy, [&]<class T>(T) {
    for (int64_t n = 0; n < a.dy.dim(0); ++n)
      for (int64_t j = 0; j < a.place.dim(1); ++j) {
        const int64_t r = a.place.row<int32_t>(n)[j];
        T dot = 0;
        for (int64_t d = 0; d < D; ++d) {
          dot += a.dy.row<T>(n)[d] * a.ys.row<T>(r)[d];
          put(a.dys.t.row<T>(r)[d], a.weights.row<T>(n)[j] * a.dy.row<T>(n)[d], a.dys.add);
        }
        put(a.dweights.t.row<T>(n)[j], dot, a.dweights.add);
      }
  });
}

}  // namespace sluice::reference
