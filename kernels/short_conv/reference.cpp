// kernels/short_conv/reference.cpp -- plain loops in the order of the formula; never optimised. In
// f64.
#include <cmath>
#include <vector>

#include "kernels/short_conv/short_conv.h"
#include "kernels/tensor/float_dispatch.h"

namespace sluice::reference {

// The input of channel c at position t of a document; t in -(W-1) .. -1 is the initial state.
template <class T, class Args>
static double input(const Args& a, int64_t doc, int64_t begin, int64_t t, int64_t c) {
  const int64_t W = a.w.dim(1);
  if (t >= 0) return a.x.template row<T>(begin + t)[c];
  return a.initial_state ? a.initial_state.template row<T>(doc)[c * (W - 1) + W - 1 + t] : 0;
}
template <class T, class Args>
static double convolve(const Args& a, int64_t doc, int64_t begin, int64_t t, int64_t c) {
  const int64_t W = a.w.dim(1);
  double z = 0;
  for (int64_t j = 0; j < W; ++j)
    z += double(a.w.template row<T>(c)[j]) * input<T>(a, doc, begin, t - (W - 1) + j, c);
  return z;
}

void short_conv_forward(const Context&, const ShortConvForward& a) {
  const int64_t C = a.x.dim(1), W = a.w.dim(1), documents = a.cu_seqlens.dim(0) - 1;
  const int32_t* cu = a.cu_seqlens.as<int32_t>();
  for_float_type(a.x, [&]<class T>(T) {
    for (int64_t doc = 0; doc < documents; ++doc)
      for (int64_t c = 0; c < C; ++c) {
        const int64_t begin = cu[doc], length = cu[doc + 1] - begin;
        for (int64_t t = 0; t < length; ++t) {
          const double z = convolve<T>(a, doc, begin, t, c);
          a.y.row<T>(begin + t)[c] = T(z / (1 + std::exp(-z)));
        }
        if (!a.final_state) continue;
        std::vector<T> last;  // through a copy: the two states may be one memory
        for (int64_t j = 0; j < W - 1; ++j)
          last.push_back(T(input<T>(a, doc, begin, length - (W - 1) + j, c)));
        for (int64_t j = 0; j < W - 1; ++j)
          a.final_state.row<T>(doc)[c * (W - 1) + j] = last[size_t(j)];
      }
  });
}

void short_conv_backward(const Context&, const ShortConvBackward& a, Tensor) {
  const int64_t C = a.x.dim(1), W = a.w.dim(1), documents = a.cu_seqlens.dim(0) - 1;
  const int32_t* cu = a.cu_seqlens.as<int32_t>();
  for_float_type(a.x, [&]<class T>(T) {
    for (int64_t c = 0; c < C; ++c) {
      std::vector<double> dw(size_t(W), 0);
      for (int64_t doc = 0; doc < documents; ++doc) {
        const int64_t begin = cu[doc], length = cu[doc + 1] - begin;
        std::vector<double> din(size_t(length + W - 1), 0);  // of positions -(W-1) .. length-1
        for (int64_t j = 0; a.dfinal_state && j < W - 1; ++j)
          din[size_t(length + j)] += a.dfinal_state.row<T>(doc)[c * (W - 1) + j];
        for (int64_t t = 0; t < length; ++t) {
          const double z = convolve<T>(a, doc, begin, t, c), s = 1 / (1 + std::exp(-z));
          const double dz = a.dy.row<T>(begin + t)[c] * s * (1 + z * (1 - s));
          for (int64_t j = 0; j < W; ++j) {
            din[size_t(t + j)] += dz * a.w.row<T>(c)[j];
            dw[size_t(j)] += dz * input<T>(a, doc, begin, t - (W - 1) + j, c);
          }
        }
        for (int64_t t = 0; t < length; ++t)
          put(a.dx.t.row<T>(begin + t)[c], T(din[size_t(t + W - 1)]), a.dx.add);
        for (int64_t j = 0; a.dinitial_state && j < W - 1; ++j)
          put(a.dinitial_state.t.row<T>(doc)[c * (W - 1) + j], T(din[size_t(j)]),
              a.dinitial_state.add);
      }
      for (int64_t j = 0; j < W; ++j) put(a.dw.t.row<T>(c)[j], T(dw[size_t(j)]), a.dw.add);
    }
  });
}

}  // namespace sluice::reference
