// kernels/linear_cross_entropy/cpu.cpp -- 512 rows of logits at a time: rows are shared out for the
// softmax and dh, ranges of the vocabulary for dw, so every sum has one order.
#include <algorithm>
#include <cmath>

#include "kernels/base/fast_math.h"
#include "kernels/gemm/gemm.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "kernels/tensor/float_dispatch.h"
#include "kernels/tensor/lanes.h"

namespace sluice::cpu {

constexpr int64_t kRows = 64;    // of a tile
constexpr int64_t kVocab = 256;  // of a tile of dw

// Logits of `count` rows from `n0` on, rows [0, count) of `logits`.
template <class T, class Args>
static void make_logits(const Args& a, int64_t n0, int64_t count, T* logits) {
  const int64_t D = a.h.dim(1), V = a.w.dim(0);
  gemm<T>(Transpose::no, Transpose::yes, count, V, D, 1, a.h.template row<T>(n0), a.h.stride[0],
          a.w.template as<T>(), D, 0, logits, V);
}

template <class T>
static int32_t first_equal(const T* z, int64_t V, T top) {
  const int64_t v = std::find(z, z + V, top) - z;
  return int32_t(v < V ? v : 0);  // not there: top is NaN
}

template <class T>
static void row_loss(const LinearCrossEntropyForward& a, int64_t n, T* z, T* nll) {
  const int64_t V = a.w.dim(0);
  const T top = lane_max<T>(V, [&](int64_t v) { return z[v]; });
  const T sum = lane_sum<T>(V, [&](int64_t v) { return fast_exp(z[v] - top); });
  const int32_t t = a.targets.as<int32_t>()[n];
  const T lse = top + std::log(sum);
  if (a.predicted) a.predicted.as<int32_t>()[n] = first_equal(z, V, top);
  a.lse.as<T>()[n] = lse;
  nll[n] = t == kIgnoreIndex ? 0 : lse - z[t];
}

void linear_cross_entropy_forward(const Context& ctx, const LinearCrossEntropyForward& a,
                                  Tensor logits, Tensor nll) {
  const int64_t N = a.h.dim(0);
  for_float_type(a.h, [&]<class T>(T) {
    for (int64_t begin = 0; begin < N; begin += kCrossEntropyRows) {
      const int64_t rows = std::min(N - begin, kCrossEntropyRows);
      parallel_for(ctx, (rows + kRows - 1) / kRows, [&](int64_t tile) {
        const int64_t r0 = tile * kRows, count = std::min(rows - r0, kRows);
        if (ctx.mode == Mode::batch_invariant)
          gemm_rowwise<T>(count, a.w.dim(0), a.h.dim(1), a.h.row<T>(begin + r0), a.h.stride[0],
                          a.w.as<T>(), a.h.dim(1), logits.row<T>(r0), a.w.dim(0));
        else
          make_logits<T>(a, begin + r0, count, logits.row<T>(r0));
        for (int64_t r = r0; r < r0 + count; ++r)
          row_loss(a, begin + r, logits.row<T>(r), nll.as<T>());
      });
    }
    double loss = 0, z_loss = 0;
    for (int64_t n = 0; n < N; ++n) {
      loss += nll.as<T>()[n];
      const double lse = a.lse.as<T>()[n];
      if (a.targets.as<int32_t>()[n] != kIgnoreIndex) z_loss += a.z_loss * lse * lse;
    }
    const double terms[] = {loss * *a.loss_scale.as<double>(), z_loss * *a.loss_scale.as<double>()};
    *a.loss.as<double>() = terms[0] + terms[1];
    if (a.terms) std::copy_n(terms, 2, a.terms.as<double>());
  });
}

template <class T>
static void row_gradient(const LinearCrossEntropyBackward& a, int64_t n, T scale, T* z) {
  const int64_t V = a.w.dim(0);
  const int32_t t = a.targets.as<int32_t>()[n];
  if (t == kIgnoreIndex) {
    std::fill_n(z, V, T(0));
    return;
  }
  const T lse = a.lse.as<T>()[n], of_p = scale * (1 + 2 * T(a.z_loss) * lse);
  for (int64_t v = 0; v < V; ++v) z[v] = of_p * fast_exp(z[v] - lse);
  z[t] -= scale;
}

void linear_cross_entropy_backward(const Context& ctx, const LinearCrossEntropyBackward& a,
                                   Tensor logits) {
  const int64_t N = a.h.dim(0), D = a.h.dim(1), V = a.w.dim(0);
  for_float_type(a.h, [&]<class T>(T) {
    const T scale = T(*a.dloss.as<double>() * *a.loss_scale.as<double>());
    if (N == 0 && !a.dw.add) std::fill_n(a.dw.t.as<T>(), V * D, T(0));
    for (int64_t begin = 0; begin < N; begin += kCrossEntropyRows) {
      const int64_t rows = std::min(N - begin, kCrossEntropyRows);
      parallel_for(ctx, (rows + kRows - 1) / kRows, [&](int64_t tile) {
        const int64_t r0 = tile * kRows, count = std::min(rows - r0, kRows);
        make_logits<T>(a, begin + r0, count, logits.row<T>(r0));
        for (int64_t r = r0; r < r0 + count; ++r)
          row_gradient(a, begin + r, scale, logits.row<T>(r));
        gemm<T>(Transpose::no, Transpose::no, count, D, V, 1, logits.row<T>(r0), V, a.w.as<T>(), D,
                a.dh.add ? 1 : 0, a.dh.t.row<T>(begin + r0), a.dh.t.stride[0]);
      });
      parallel_for(ctx, (V + kVocab - 1) / kVocab, [&](int64_t tile) {
        const int64_t v0 = tile * kVocab;
        gemm<T>(Transpose::yes, Transpose::no, std::min(V - v0, kVocab), D, rows, 1,
                logits.as<T>() + v0, V, a.h.row<T>(begin), a.h.stride[0],
                a.dw.add || begin > 0 ? 1 : 0, a.dw.t.row<T>(v0), D);
      });
    }
  });
}

}  // namespace sluice::cpu
