// kernels/moe/grouped_linear/reference.cpp -- plain loops in the order of the formula; never
// optimised. Sums are in T and in index order.
#include "kernels/moe/grouped_linear/grouped_linear.h"
#include "kernels/tensor/float_dispatch.h"

namespace sluice::reference {

void grouped_linear_forward(const Context&, const GroupedLinearForward& a) {
  const int64_t E = a.w.dim(0), F = a.w.dim(1), D = a.w.dim(2);
  const int32_t* begin = a.offsets.as<int32_t>();
  for_float_type(a.x, [&]<class T>(T) {
    for (int64_t e = 0; e < E; ++e)
      for (int64_t r = begin[e]; r < begin[e + 1]; ++r)
        for (int64_t f = 0; f < F; ++f) {
          T sum = 0;
          for (int64_t d = 0; d < D; ++d) sum += a.x.row<T>(r)[d] * a.w.row<T>(e)[f * D + d];
          a.y.row<T>(r)[f] = sum;
        }
  });
}

void grouped_linear_backward(const Context&, const GroupedLinearBackward& a) {
  const int64_t E = a.w.dim(0), F = a.w.dim(1), D = a.w.dim(2);
  const int32_t* begin = a.offsets.as<int32_t>();
  for_float_type(a.x, [&]<class T>(T) {
    for (int64_t e = 0; e < E; ++e) {
      for (int64_t r = begin[e]; r < begin[e + 1]; ++r)
        for (int64_t d = 0; d < D; ++d) {
          T sum = 0;
          for (int64_t f = 0; f < F; ++f) sum += a.dy.row<T>(r)[f] * a.w.row<T>(e)[f * D + d];
          put(a.dx.t.row<T>(r)[d], sum, a.dx.add);
        }
      for (int64_t f = 0; f < F; ++f)
        for (int64_t d = 0; d < D; ++d) {
          T sum = 0;
          for (int64_t r = begin[e]; r < begin[e + 1]; ++r)
            sum += a.dy.row<T>(r)[f] * a.x.row<T>(r)[d];
          put(a.dw.t.row<T>(e)[f * D + d], sum, a.dw.add);
        }
    }
  });
}

}  // namespace sluice::reference
