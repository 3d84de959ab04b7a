// kernels/short_conv/cpu.cpp -- tiles of rows x channels: SIMD along the channels, rows streamed.
//
// A backward tile walks its rows once: dz of a row stays in a ring of W rows until all that the
// input W-1 rows before needs is there. It computes the W-1 rows after its own again for that.
#include <algorithm>
#include <array>

#include "kernels/base/fast_math.h"
#include "kernels/short_conv/short_conv.h"
#include "kernels/tensor/float_dispatch.h"

namespace sluice::cpu {

namespace {

constexpr int64_t kRows = kShortConvRows;
constexpr int64_t kChannels = 512;  // long runs of memory, and a tile's taps still in L1 at W = 4
constexpr int64_t kTaps = kShortConvMaxWidth;

// Channels c0 .. c0 + count - 1 of one document, and a window of W inputs that ends at one token.
template <class T, class Args>
class Window {
 public:
  Window(const Args& a, int64_t c0, int64_t count) : W(a.w.dim(1)), c0_(c0), count_(count), a_(a) {
    for (int64_t c = 0; c < count; ++c)
      for (int64_t j = 0; j < W; ++j) tap[j][c] = a.w.template row<T>(c0 + c)[j];
  }
  void enter(int64_t doc) {
    const int32_t* cu = a_.cu_seqlens.template as<int32_t>();
    begin = cu[doc], length = cu[doc + 1] - begin;
    for (int64_t j = 0; j < W - 1; ++j)
      for (int64_t c = 0; c < count_; ++c)
        before_[j][c] =
            a_.initial_state ? a_.initial_state.template row<T>(doc)[(c0_ + c) * (W - 1) + j] : 0;
  }
  // The inputs of token t of the document: x[j] is that of tap j.
  void move_to(int64_t t) {
    for (int64_t j = 0; j < W; ++j) {
      const int64_t from = t - (W - 1) + j;
      x[j] = from >= 0 ? a_.x.template row<T>(begin + from) + c0_ : before_[W - 1 + from];
    }
  }
  void convolve(T* z) const {
    const int64_t count = count_;
    for (int64_t c = 0; c < count; ++c) z[c] = tap[0][c] * x[0][c];
    int64_t j = 1;
    for (; j + 1 < W; j += 2) {  // in pairs: half the traffic of z
      const T *wa = tap[j], *wb = tap[j + 1], *xa = x[j], *xb = x[j + 1];
      for (int64_t c = 0; c < count; ++c) z[c] = z[c] + wa[c] * xa[c] + wb[c] * xb[c];
    }
    for (; j < W; ++j) {
      const T *w = tap[j], *in = x[j];
      for (int64_t c = 0; c < count; ++c) z[c] += w[c] * in[c];
    }
  }

  const int64_t W;
  int64_t begin = 0, length = 0;  // first row and rows of the document
  T tap[kTaps][kChannels];        // transposed, so that channels lie side by side
  const T* x[kTaps] = {};

 private:
  int64_t c0_, count_;
  const Args& a_;
  T before_[kTaps][kChannels];  // the W-1 inputs before the document
};

// body(doc, t0, t1): the pieces of documents that lie in rows r0 .. r1 - 1; t counts in the
// document.
template <class Body>
void for_pieces(const Tensor& cu_seqlens, int64_t r0, int64_t r1, Body body) {
  const int32_t *cu = cu_seqlens.as<int32_t>(), *end = cu + cu_seqlens.dim(0);
  for (const int32_t* d = std::upper_bound(cu, end, int32_t(r0)) - 1; d + 1 < end && d[0] < r1; ++d)
    if (d[1] > d[0])
      body(d - cu, std::max<int64_t>(r0 - d[0], 0), std::min<int64_t>(r1, d[1]) - d[0]);
}

struct Extent {
  int64_t r0, r1, c0, count;  // rows, channels
};

// body(extent, row block) for all tiles of [N, C].
template <class Body>
void for_tiles(const Context& ctx, int64_t N, int64_t C, Body body) {
  const int64_t across = (C + kChannels - 1) / kChannels;
  parallel_for(ctx, (N + kRows - 1) / kRows * across, [&](int64_t unit) {
    const int64_t r0 = unit / across * kRows, c0 = unit % across * kChannels;
    body(Extent{r0, std::min(N, r0 + kRows), c0, std::min(kChannels, C - c0)}, unit / across);
  });
}

template <class T>
void forward_tile(const ShortConvForward& a, const Extent& e) {
  Window<T, ShortConvForward> in(a, e.c0, e.count);
  T z[kChannels];
  for_pieces(a.cu_seqlens, e.r0, e.r1, [&](int64_t doc, int64_t t0, int64_t t1) {
    in.enter(doc);
    for (int64_t t = t0; t < t1; ++t) {
      in.move_to(t);
      T* y = a.y.row<T>(in.begin + t) + e.c0;
      in.convolve(z);
      for (int64_t c = 0; c < e.count; ++c) y[c] = fast_silu(z[c]);
    }
  });
}

// Through a copy of each channel's inputs: the two states may be one memory.
template <class T>
void write_final_state(const ShortConvForward& a, int64_t doc) {
  const int32_t* cu = a.cu_seqlens.as<int32_t>();
  const int64_t length = cu[doc + 1] - cu[doc], W1 = a.w.dim(1) - 1;
  for (int64_t c = 0; c < a.x.dim(1); ++c) {
    std::array<T, kTaps> last{};
    for (int64_t j = 0; j < W1; ++j) {
      const int64_t t = length - W1 + j;
      if (t >= 0)
        last[size_t(j)] = a.x.row<T>(cu[doc] + t)[c];
      else if (a.initial_state)
        last[size_t(j)] = a.initial_state.row<T>(doc)[c * W1 + W1 + t];
    }
    std::copy_n(last.begin(), W1, a.final_state.row<T>(doc) + c * W1);
  }
}

// dz of tokens t .. t + W-1 and more, the newest W kept.
template <class T>
struct Ring {
  T* row(int64_t t) { return rows[t & (kTaps - 1)]; }
  T rows[kTaps][kChannels];
};

template <class T>
void make_dz(const ShortConvBackward& a, const Extent& e, Window<T, ShortConvBackward>& in,
             int64_t t, T* dz) {
  in.move_to(t);
  const T* dy = a.dy.row<T>(in.begin + t) + e.c0;
  T z[kChannels];
  in.convolve(z);
  for (int64_t c = 0; c < e.count; ++c) {
    const T sigma = fast_sigmoid(z[c]);
    dz[c] = dy[c] * sigma * (1 + z[c] * (1 - sigma));
  }
}

// Cotangent of position t, -(W-1) .. length-1, into sum: dz of the tokens that read it (token
// t + W-1 - j through tap j), and that of the final state, which is the last W-1 positions.
template <class T>
void input_cotangent(const ShortConvBackward& a, const Extent& e,
                     const Window<T, ShortConvBackward>& in, int64_t doc, int64_t t, Ring<T>& ring,
                     T* sum) {
  const int64_t W1 = in.W - 1, first = std::max<int64_t>(t, 0),
                last = std::min(t + W1, in.length - 1);
  std::fill_n(sum, e.count, T(0));
  for (int64_t reader = last; reader >= first; --reader) {
    const T *dz = ring.row(reader), *w = in.tap[t + W1 - reader];
    for (int64_t c = 0; c < e.count; ++c) sum[c] += w[c] * dz[c];
  }
  const int64_t in_state = t - (in.length - W1);
  if (a.dfinal_state && in_state >= 0)
    for (int64_t c = 0; c < e.count; ++c)
      sum[c] += a.dfinal_state.row<T>(doc)[(e.c0 + c) * W1 + in_state];
}

// dx of a tile, and its share of dw into dw_part [W, C].
template <class T>
void backward_tile(const ShortConvBackward& a, const Extent& e, T* dw_part) {
  Window<T, ShortConvBackward> in(a, e.c0, e.count);
  const int64_t W = in.W, C = a.x.dim(1);
  Ring<T> ring;
  T sum[kChannels], dw[kTaps][kChannels] = {};
  for_pieces(a.cu_seqlens, e.r0, e.r1, [&](int64_t doc, int64_t t0, int64_t t1) {
    in.enter(doc);
    for (int64_t t = t0; t < t1 + W - 1; ++t) {
      if (t < in.length) make_dz(a, e, in, t, ring.row(t));
      if (t < t1) {
        const T* dz = ring.row(t);
        for (int64_t j = 0; j < W; ++j) {
          const T* x = in.x[j];
          for (int64_t c = 0; c < e.count; ++c) dw[j][c] += dz[c] * x[c];
        }
      }
      if (t - (W - 1) < t0) continue;
      input_cotangent(a, e, in, doc, t - (W - 1), ring, sum);
      T* dx = a.dx.t.row<T>(in.begin + t - (W - 1)) + e.c0;
      if (a.dx.add)
        for (int64_t c = 0; c < e.count; ++c) dx[c] += sum[c];
      else
        std::copy_n(sum, e.count, dx);
    }
  });
  for (int64_t j = 0; j < W; ++j) std::copy_n(dw[j], e.count, dw_part + j * C + e.c0);
}

template <class T>
void backward_initial_state(const ShortConvBackward& a, int64_t doc) {
  const int64_t C = a.x.dim(1), W1 = a.w.dim(1) - 1;
  Ring<T> ring;
  T sum[kChannels];
  for (int64_t c0 = 0; c0 < C; c0 += kChannels) {
    const Extent e{0, 0, c0, std::min(kChannels, C - c0)};
    Window<T, ShortConvBackward> in(a, c0, e.count);
    in.enter(doc);
    for (int64_t t = 0; t < std::min(W1, in.length); ++t) make_dz(a, e, in, t, ring.row(t));
    for (int64_t j = 0; j < W1; ++j) {
      input_cotangent(a, e, in, doc, j - W1, ring, sum);
      for (int64_t c = 0; c < e.count; ++c)
        put(a.dinitial_state.t.row<T>(doc)[(c0 + c) * W1 + j], sum[c], a.dinitial_state.add);
    }
  }
}

}  // namespace

void short_conv_forward(const Context& ctx, const ShortConvForward& a) {
  for_float_type(a.x, [&]<class T>(T) {
    for_tiles(ctx, a.x.dim(0), a.x.dim(1),
              [&](const Extent& e, int64_t) { forward_tile<T>(a, e); });
    if (!a.final_state) return;
    parallel_for(ctx, a.final_state.dim(0), [&](int64_t doc) { write_final_state<T>(a, doc); });
  });
}

void short_conv_backward(const Context& ctx, const ShortConvBackward& a, Tensor dw_parts) {
  const int64_t C = a.x.dim(1), W = a.w.dim(1), blocks = dw_parts.dim(0);
  for_float_type(a.x, [&]<class T>(T) {
    for_tiles(ctx, a.x.dim(0), C, [&](const Extent& e, int64_t block) {
      backward_tile<T>(a, e, dw_parts.row<T>(block));
    });
    parallel_for(ctx, (C + kChannels - 1) / kChannels, [&](int64_t tile) {
      for (int64_t c = tile * kChannels; c < std::min(C, (tile + 1) * kChannels); ++c)
        for (int64_t j = 0; j < W; ++j) {
          T sum = 0;
          for (int64_t b = 0; b < blocks; ++b) sum += dw_parts.row<T>(b)[j * C + c];
          put(a.dw.t.row<T>(c)[j], sum, a.dw.add);
        }
    });
    if (!a.dinitial_state) return;
    parallel_for(ctx, a.cu_seqlens.dim(0) - 1,
                 [&](int64_t doc) { backward_initial_state<T>(a, doc); });
  });
}

}  // namespace sluice::cpu
