// kernels/mla/cpu.cpp -- tiles of 64 queries x 64 keys: online softmax forward, probabilities made
// again from lse backward. One (document, head) a unit; its keys are gathered and rotated once.
#include <algorithm>
#include <limits>
#include <vector>

#include "kernels/base/fast_math.h"
#include "kernels/gemm/gemm.h"
#include "kernels/mla/sizes.h"
#include "kernels/tensor/float_dispatch.h"
#include "kernels/tensor/lanes.h"

namespace sluice::cpu {

using mla::Sizes;

namespace {

constexpr int64_t kTile = 64;

// Queries or keys of one head of one document, packed and rotated: [n, nope + rope].
template <class T>
std::vector<T> gather(const Tensor& nope_part, int64_t column, const Tensor& rope_part,
                      int64_t rope_column, int64_t first, int64_t n, int64_t position,
                      const Sizes& s, double theta) {
  const int64_t width = s.nope + s.rope;
  std::vector<T> out(size_t(n * width));
  for (int64_t i = 0; i < n; ++i) {
    T* to = &out[size_t(i * width)];
    std::copy_n(nope_part.row<T>(first + i) + column, s.nope, to);
    if (s.rope > 0) std::copy_n(rope_part.row<T>(first + i) + rope_column, s.rope, to + s.nope);
    if (theta > 0) mla::rotate(to + s.nope, s.rope, position + i, theta, 1);
  }
  return out;
}

template <class T>
struct Head {
  template <class Args>
  Head(const Args& a, const Sizes& s, int64_t doc, int64_t h) {
    const int32_t *cq = a.cu_seqlens_q.template as<int32_t>(),
                  *ck = a.cu_seqlens_k.template as<int32_t>();
    q0 = cq[doc], nq = cq[doc + 1] - q0, k0 = ck[doc], nk = ck[doc + 1] - k0;
    before = nk - nq;
    const int64_t qw = s.nope + s.rope;
    q = gather<T>(a.q, h * qw, a.q, h * qw + s.nope, q0, nq, before, s, a.rope_theta);
    k = gather<T>(a.kv, h * (s.nope + s.V), a.k_rope, 0, k0, nk, 0, s, a.rope_theta);
    v = a.kv.template row<T>(k0) + h * (s.nope + s.V) + s.nope;
    v_stride = a.kv.stride[0];
  }
  int64_t q0, nq, k0, nk, before;  // rows, and keys before the first query
  std::vector<T> q, k;             // [nq, width], [nk, width]
  const T* v;                      // [nk, V], v_stride apart
  int64_t v_stride;
};

// Scaled scores of a tile; -infinity beyond the diagonal.
template <class T>
void tile_scores(const Head<T>& head, int64_t width, int64_t i0, int64_t m, int64_t j0, int64_t n,
                 T* score) {
  const T scale = 1 / std::sqrt(T(width));
  gemm<T>(Transpose::no, Transpose::yes, m, n, width, scale, &head.q[size_t(i0 * width)], width,
          &head.k[size_t(j0 * width)], width, 0, score, kTile);
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = std::max<int64_t>(0, head.before + i0 + i + 1 - j0); j < n; ++j)
      score[i * kTile + j] = -std::numeric_limits<T>::infinity();
}

template <class T>
void head_forward(const MlaForward& a, const Sizes& s, int64_t doc, int64_t h) {
  const int32_t* cq = a.cu_seqlens_q.as<int32_t>();
  if (cq[doc] == cq[doc + 1]) return;
  const Head<T> head(a, s, doc, h);
  std::vector<T> score(kTile * kTile), top(kTile), sum(kTile), o(size_t(kTile * s.V));
  for (int64_t i0 = 0; i0 < head.nq; i0 += kTile) {
    const int64_t m = std::min(kTile, head.nq - i0);
    std::fill(top.begin(), top.end(), -std::numeric_limits<T>::infinity());
    std::fill(sum.begin(), sum.end(), T(0));
    std::fill(o.begin(), o.end(), T(0));
    for (int64_t j0 = 0; j0 < head.before + i0 + m; j0 += kTile) {
      const int64_t n = std::min(kTile, head.nk - j0);
      tile_scores(head, s.nope + s.rope, i0, m, j0, n, score.data());
      for (int64_t i = 0; i < m; ++i) {
        T* row = &score[size_t(i * kTile)];
        T peak = top[size_t(i)];
        for (int64_t j = 0; j < n; ++j) peak = row[j] > peak ? row[j] : peak;
        if (peak == -std::numeric_limits<T>::infinity()) {  // the whole row is beyond the diagonal
          std::fill_n(row, n, T(0));
          continue;
        }
        const T keep = fast_exp(top[size_t(i)] - peak);
        for (int64_t j = 0; j < n; ++j) row[j] = fast_exp(row[j] - peak);
        sum[size_t(i)] = sum[size_t(i)] * keep + lane_sum<T>(n, [&](int64_t j) { return row[j]; });
        for (int64_t e = 0; e < s.V; ++e) o[size_t(i * s.V + e)] *= keep;
        top[size_t(i)] = peak;
      }
      gemm<T>(Transpose::no, Transpose::no, m, s.V, n, 1, score.data(), kTile,
              head.v + j0 * head.v_stride, head.v_stride, 1, o.data(), s.V);
    }
    for (int64_t i = 0; i < m; ++i) {
      T* out = a.o.row<T>(head.q0 + i0 + i) + h * s.V;
      for (int64_t e = 0; e < s.V; ++e) out[e] = o[size_t(i * s.V + e)] / sum[size_t(i)];
      a.lse.row<T>(head.q0 + i0 + i)[h] = top[size_t(i)] + std::log(sum[size_t(i)]);
    }
  }
}

// Cotangents of one head: dq and dkv of its own columns, dk_rope into by_head [Nk, rope].
template <class T>
void head_backward(const MlaBackward& a, const Sizes& s, int64_t doc, int64_t h, T* by_head) {
  const int32_t* ck = a.cu_seqlens_k.as<int32_t>();
  if (ck[doc] == ck[doc + 1]) return;
  const Head<T> head(a, s, doc, h);
  const int64_t width = s.nope + s.rope, os = a.d_o.stride[0];
  std::vector<T> p(kTile * kTile), ds(kTile * kTile);
  std::vector<T> dq(head.q.size()), dk(head.k.size()), dv(size_t(head.nk * s.V)),
      delta(size_t(head.nq));
  const T* d_o = a.d_o.row<T>(head.q0) + h * s.V;
  for (int64_t i = 0; i < head.nq; ++i) {
    const T *x = d_o + i * os, *o = a.o.row<T>(head.q0 + i) + h * s.V;
    delta[size_t(i)] = lane_sum<T>(s.V, [&](int64_t e) { return x[e] * o[e]; });
  }
  const T scale = 1 / std::sqrt(T(width));
  for (int64_t i0 = 0; i0 < head.nq; i0 += kTile) {
    const int64_t m = std::min(kTile, head.nq - i0);
    for (int64_t j0 = 0; j0 < head.before + i0 + m; j0 += kTile) {
      const int64_t n = std::min(kTile, head.nk - j0);
      tile_scores(head, width, i0, m, j0, n, p.data());
      gemm<T>(Transpose::no, Transpose::yes, m, n, s.V, 1, d_o + i0 * os, os,
              head.v + j0 * head.v_stride, head.v_stride, 0, ds.data(), kTile);
      for (int64_t i = 0; i < m; ++i) {
        const T lse = a.lse.row<T>(head.q0 + i0 + i)[h], d = delta[size_t(i0 + i)];
        T *pr = &p[size_t(i * kTile)], *dr = &ds[size_t(i * kTile)];
        for (int64_t j = 0; j < n; ++j) {
          pr[j] = fast_exp(pr[j] - lse);
          dr[j] = pr[j] * (dr[j] - d) * scale;
        }
      }
      gemm<T>(Transpose::yes, Transpose::no, n, s.V, m, 1, p.data(), kTile, d_o + i0 * os, os, 1,
              &dv[size_t(j0 * s.V)], s.V);
      gemm<T>(Transpose::no, Transpose::no, m, width, n, 1, ds.data(), kTile,
              &head.k[size_t(j0 * width)], width, 1, &dq[size_t(i0 * width)], width);
      gemm<T>(Transpose::yes, Transpose::no, n, width, m, 1, ds.data(), kTile,
              &head.q[size_t(i0 * width)], width, 1, &dk[size_t(j0 * width)], width);
    }
  }
  for (int64_t i = 0; i < head.nq; ++i) {
    T *x = &dq[size_t(i * width)], *out = a.dq.t.row<T>(head.q0 + i) + h * width;
    if (a.rope_theta > 0) mla::rotate(x + s.nope, s.rope, head.before + i, a.rope_theta, -1);
    for (int64_t d = 0; d < width; ++d) put(out[d], x[d], a.dq.add);
  }
  for (int64_t j = 0; j < head.nk; ++j) {
    T *x = &dk[size_t(j * width)], *out = a.dkv.t.row<T>(head.k0 + j) + h * (s.nope + s.V);
    if (a.rope_theta > 0) mla::rotate(x + s.nope, s.rope, j, a.rope_theta, -1);
    for (int64_t d = 0; d < s.nope; ++d) put(out[d], x[d], a.dkv.add);
    for (int64_t e = 0; e < s.V; ++e) put(out[s.nope + e], dv[size_t(j * s.V + e)], a.dkv.add);
    std::copy_n(x + s.nope, s.rope, by_head + (head.k0 + j) * s.rope);
  }
}

}  // namespace

void mla_forward(const Context& ctx, const MlaForward& a) {
  const Sizes s = mla::sizes_of(a);
  for_float_type(a.q, [&]<class T>(T) {
    parallel_for(ctx, s.documents * s.H,
                 [&](int64_t unit) { head_forward<T>(a, s, unit / s.H, unit % s.H); });
  });
}

void mla_backward(const Context& ctx, const MlaBackward& a, Tensor dk_rope_by_head) {
  const Sizes s = mla::sizes_of(a);
  for_float_type(a.q, [&]<class T>(T) {
    parallel_for(ctx, s.documents * s.H, [&](int64_t unit) {
      head_backward<T>(a, s, unit / s.H, unit % s.H, dk_rope_by_head.row<T>(unit % s.H));
    });
    if (s.rope == 0) return;
    parallel_for(ctx, (s.Nk + kTile - 1) / kTile, [&](int64_t block) {
      for (int64_t n = block * kTile; n < std::min(s.Nk, (block + 1) * kTile); ++n)
        for (int64_t d = 0; d < s.rope; ++d) {
          T sum = 0;
          for (int64_t h = 0; h < s.H; ++h) sum += dk_rope_by_head.row<T>(h)[n * s.rope + d];
          put(a.dk_rope.t.row<T>(n)[d], sum, a.dk_rope.add);
        }
    });
  });
}

}  // namespace sluice::cpu
