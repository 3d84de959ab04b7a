// kernels/mla_cache/cpu_prefill.cpp -- tiles of 64 keys, made from their latents once for all
// queries of the call; online softmax. One (slot, head) a unit.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/base/fast_math.h"
#include "kernels/gemm/gemm.h"
#include "kernels/mla/sizes.h"
#include "kernels/mla_cache/sizes.h"
#include "kernels/tensor/float_dispatch.h"
#include "kernels/tensor/lanes.h"

namespace sluice::cpu {

using mla_cache::Sizes;

namespace {

constexpr int64_t kTile = 64;

template <class T>
class Head {
 public:
  Head(const MlaCached& a, const Sizes& s, int64_t slot, int64_t h)
      : a_(a),
        s_(s),
        rows_(mla_cache::rows_of(a, slot)),
        h_(h),
        latents_(a.latents.row<T>(slot)),
        q_(a.q.row<T>(rows_.first) + h * (s.nope + s.rope)),
        q_rope_(size_t(rows_.count * s.rope)),
        kv_(size_t(kTile * (s.nope + s.V))),
        score_(size_t(rows_.count * kTile)),
        top_(size_t(rows_.count), -std::numeric_limits<T>::infinity()),
        sum_(size_t(rows_.count)),
        o_(size_t(rows_.count * s.V)) {
    for (int64_t i = 0; i < rows_.count; ++i) {
      T* to = &q_rope_[size_t(i * s.rope)];
      std::copy_n(q_ + i * a.q.stride[0] + s.nope, s.rope, to);
      if (a.rope_theta > 0) mla::rotate(to, s.rope, rows_.past + i, a.rope_theta, 1);
    }
  }

  void run() {
    const int64_t keys = rows_.past + rows_.count;
    for (int64_t j0 = 0; j0 < keys; j0 += kTile) add_tile(j0, std::min(kTile, keys - j0));
    for (int64_t i = 0; i < rows_.count; ++i) {
      T* out = a_.o.row<T>(rows_.first + i) + h_ * s_.V;
      for (int64_t e = 0; e < s_.V; ++e) out[e] = o_[size_t(i * s_.V + e)] / sum_[size_t(i)];
    }
  }

 private:
  // Keys j0 .. j0 + n, for the queries i0 .. that see any of them.
  void add_tile(int64_t j0, int64_t n) {
    const int64_t i0 = std::max<int64_t>(0, j0 - rows_.past), m = rows_.count - i0;
    const int64_t kv_width = s_.nope + s_.V, cached = s_.r + s_.rope;
    const T *latent = latents_ + j0 * cached, *w = a_.w_kv_b.row<T>(h_ * kv_width);
    const T scale = 1 / std::sqrt(T(s_.nope + s_.rope));
    T* score = score_.data();
    gemm<T>(Transpose::no, Transpose::yes, n, kv_width, s_.r, 1, latent, cached, w,
            a_.w_kv_b.stride[0], 0, kv_.data(), kv_width);
    gemm<T>(Transpose::no, Transpose::yes, m, n, s_.nope, scale, q_ + i0 * a_.q.stride[0],
            a_.q.stride[0], kv_.data(), kv_width, 0, score, kTile);
    gemm<T>(Transpose::no, Transpose::yes, m, n, s_.rope, scale, &q_rope_[size_t(i0 * s_.rope)],
            s_.rope, latent + s_.r, cached, 1, score, kTile);
    for (int64_t i = i0; i < rows_.count; ++i)
      softmax_row(i, std::min(n, rows_.past + i + 1 - j0), n, score + (i - i0) * kTile);
    gemm<T>(Transpose::no, Transpose::no, m, s_.V, n, 1, score, kTile, kv_.data() + s_.nope,
            kv_width, 1, &o_[size_t(i0 * s_.V)], s_.V);
  }

  // Scores of query i become weights; `seen` of the n keys are not beyond the diagonal.
  void softmax_row(int64_t i, int64_t seen, int64_t n, T* score) {
    T peak = top_[size_t(i)];
    for (int64_t j = 0; j < seen; ++j) peak = score[j] > peak ? score[j] : peak;
    const T keep = fast_exp(top_[size_t(i)] - peak);
    for (int64_t j = 0; j < seen; ++j) score[j] = fast_exp(score[j] - peak);
    std::fill(score + seen, score + n, T(0));
    sum_[size_t(i)] =
        sum_[size_t(i)] * keep + lane_sum<T>(seen, [&](int64_t j) { return score[j]; });
    for (int64_t e = 0; e < s_.V; ++e) o_[size_t(i * s_.V + e)] *= keep;
    top_[size_t(i)] = peak;
  }

  const MlaCached& a_;
  const Sizes& s_;
  const mla_cache::Rows rows_;
  const int64_t h_;
  const T* latents_;              // [T, r + rope]
  const T* q_;                    // [count, nope + rope], a row of a_.q apart
  std::vector<T> q_rope_;         // [count, rope], rotated
  std::vector<T> kv_;             // [kTile, nope + V]
  std::vector<T> score_;          // [count, kTile]
  std::vector<T> top_, sum_, o_;  // [count], [count], [count, V]
};

}  // namespace

void mla_prefill(const Context& ctx, const MlaCached& a) {
  const Sizes s = mla_cache::sizes_of(a);
  for_float_type(a.q, [&]<class T>(T) {
    parallel_for(ctx, s.S * s.H, [&](int64_t unit) {
      if (mla_cache::rows_of(a, unit / s.H).count > 0) Head<T>(a, s, unit / s.H, unit % s.H).run();
    });
  });
}

}  // namespace sluice::cpu
