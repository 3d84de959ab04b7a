// kernels/short_conv/cpu.cpp -- blocks of channels, each walking all tokens in order: SIMD along the
// channels, no two threads on one output, and sums over tokens in one order.
#include <algorithm>
#include <array>

#include "kernels/base/fast_math.h"
#include "kernels/short_conv/short_conv.h"
#include "kernels/tensor/float_dispatch.h"

namespace sluice::cpu {

namespace {

constexpr int64_t kBlock = kShortConvChannels;
constexpr int64_t kTaps = kShortConvMaxWidth;

// A block's taps, transposed: tap[j][c].
template <class T>
struct Taps {
  Taps(const Tensor& w, int64_t c0, int64_t count) : W(w.dim(1)) {
    for (int64_t c = 0; c < count; ++c)
      for (int64_t j = 0; j < W; ++j) tap[size_t(j)][size_t(c)] = w.row<T>(c0 + c)[j];
  }
  int64_t W;
  std::array<std::array<T, kBlock>, kTaps> tap{};
};

// The W-1 inputs before a document, [W-1][count], from the state or zero.
template <class T, class Args>
void load_history(const Args& a, int64_t doc, int64_t c0, int64_t count, T (*history)[kBlock]) {
  const int64_t W1 = a.w.dim(1) - 1;
  for (int64_t j = 0; j < W1; ++j)
    for (int64_t c = 0; c < count; ++c)
      history[j][c] =
          a.initial_state ? a.initial_state.template row<T>(doc)[(c0 + c) * W1 + j] : T(0);
}

// Row t of the document's block: history before 0.
template <class T, class Args>
const T* input_row(const Args& a, int64_t begin, int64_t t, int64_t c0, T (*history)[kBlock]) {
  return t >= 0 ? a.x.template row<T>(begin + t) + c0 : history[a.w.dim(1) - 1 + t];
}

template <class T, class Args>
void convolve(const Args& a, const Taps<T>& taps, int64_t begin, int64_t t, int64_t c0,
              int64_t count, T (*history)[kBlock], T* z) {
  std::fill_n(z, count, T(0));
  for (int64_t j = 0; j < taps.W; ++j) {
    const T* x = input_row(a, begin, t - (taps.W - 1) + j, c0, history);
    const T* w = taps.tap[size_t(j)].data();
    for (int64_t c = 0; c < count; ++c) z[c] += w[c] * x[c];
  }
}

template <class T>
void forward_block(const ShortConvForward& a, int64_t c0, int64_t count) {
  const Taps<T> taps(a.w, c0, count);
  const int32_t* cu = a.cu_seqlens.as<int32_t>();
  T history[kTaps][kBlock], z[kBlock], last[kTaps][kBlock];
  for (int64_t doc = 0; doc + 1 < a.cu_seqlens.dim(0); ++doc) {
    const int64_t begin = cu[doc], length = cu[doc + 1] - begin, W1 = taps.W - 1;
    load_history(a, doc, c0, count, history);
    for (int64_t t = 0; t < length; ++t) {
      convolve(a, taps, begin, t, c0, count, history, z);
      T* y = a.y.row<T>(begin + t) + c0;
      for (int64_t c = 0; c < count; ++c) y[c] = fast_silu(z[c]);
    }
    if (!a.final_state) continue;
    for (int64_t j = 0; j < W1; ++j)
      std::copy_n(input_row(a, begin, length - W1 + j, c0, history), count, last[j]);
    for (int64_t j = 0; j < W1; ++j)
      for (int64_t c = 0; c < count; ++c)
        a.final_state.row<T>(doc)[(c0 + c) * W1 + j] = last[j][c];
  }
}

// dz of the block into scratch, and dw.
template <class T>
void backward_taps(const ShortConvBackward& a, const Taps<T>& taps, int64_t c0, int64_t count,
                   const Tensor& dz) {
  const int32_t* cu = a.cu_seqlens.as<int32_t>();
  T history[kTaps][kBlock], z[kBlock], dw[kTaps][kBlock] = {};
  for (int64_t doc = 0; doc + 1 < a.cu_seqlens.dim(0); ++doc) {
    const int64_t begin = cu[doc], length = cu[doc + 1] - begin;
    load_history(a, doc, c0, count, history);
    for (int64_t t = 0; t < length; ++t) {
      convolve(a, taps, begin, t, c0, count, history, z);
      const T* dy = a.dy.row<T>(begin + t) + c0;
      T* out = dz.row<T>(begin + t) + c0;
      for (int64_t c = 0; c < count; ++c) {
        const T s = fast_sigmoid(z[c]);
        out[c] = dy[c] * s * (1 + z[c] * (1 - s));
      }
      for (int64_t j = 0; j < taps.W; ++j) {
        const T* x = input_row(a, begin, t - (taps.W - 1) + j, c0, history);
        for (int64_t c = 0; c < count; ++c) dw[j][c] += out[c] * x[c];
      }
    }
  }
  for (int64_t c = 0; c < count; ++c)
    for (int64_t j = 0; j < taps.W; ++j) put(a.dw.t.row<T>(c0 + c)[j], dw[j][c], a.dw.add);
}

// Cotangent of position t, -(W-1) .. length-1: dz of the tokens that read it, and of the final state.
template <class T>
void input_cotangent(const ShortConvBackward& a, const Taps<T>& taps, int64_t doc, int64_t t,
                     int64_t c0, int64_t count, const Tensor& dz, T* sum) {
  const int32_t* cu = a.cu_seqlens.as<int32_t>();
  const int64_t begin = cu[doc], length = cu[doc + 1] - begin, W1 = taps.W - 1;
  std::fill_n(sum, count, T(0));
  for (int64_t j = 0; j < taps.W; ++j) {  // token t + W1 - j reads position t through tap j
    const int64_t reader = t + W1 - j;
    if (reader < 0 || reader >= length) continue;
    const T *g = dz.row<T>(begin + reader) + c0, *w = taps.tap[size_t(j)].data();
    for (int64_t c = 0; c < count; ++c) sum[c] += w[c] * g[c];
  }
  const int64_t in_state = t - (length - W1);
  if (a.dfinal_state && in_state >= 0)
    for (int64_t c = 0; c < count; ++c)
      sum[c] += a.dfinal_state.row<T>(doc)[(c0 + c) * W1 + in_state];
}

template <class T>
void backward_block(const ShortConvBackward& a, int64_t c0, int64_t count, const Tensor& dz) {
  const Taps<T> taps(a.w, c0, count);
  const int32_t* cu = a.cu_seqlens.as<int32_t>();
  const int64_t W1 = taps.W - 1;
  backward_taps(a, taps, c0, count, dz);
  T sum[kBlock];
  for (int64_t doc = 0; doc + 1 < a.cu_seqlens.dim(0); ++doc) {
    for (int64_t t = 0; t < cu[doc + 1] - cu[doc]; ++t) {
      input_cotangent(a, taps, doc, t, c0, count, dz, sum);
      T* dx = a.dx.t.row<T>(cu[doc] + t) + c0;
      for (int64_t c = 0; c < count; ++c) dx[c] = a.dx.add ? dx[c] + sum[c] : sum[c];
    }
    for (int64_t j = 0; a.dinitial_state && j < W1; ++j) {
      input_cotangent(a, taps, doc, j - W1, c0, count, dz, sum);
      for (int64_t c = 0; c < count; ++c)
        put(a.dinitial_state.t.row<T>(doc)[(c0 + c) * W1 + j], sum[c], a.dinitial_state.add);
    }
  }
}

}  // namespace

void short_conv_forward(const Context& ctx, const ShortConvForward& a) {
  const int64_t C = a.x.dim(1);
  for_float_type(a.x, [&]<class T>(T) {
    parallel_for(ctx, (C + kBlock - 1) / kBlock, [&](int64_t block) {
      forward_block<T>(a, block * kBlock, std::min(kBlock, C - block * kBlock));
    });
  });
}

void short_conv_backward(const Context& ctx, const ShortConvBackward& a, Tensor dz) {
  const int64_t C = a.x.dim(1);
  for_float_type(a.x, [&]<class T>(T) {
    parallel_for(ctx, (C + kBlock - 1) / kBlock, [&](int64_t block) {
      backward_block<T>(a, block * kBlock, std::min(kBlock, C - block * kBlock), dz);
    });
  });
}

}  // namespace sluice::cpu
