// kernels/mla_cache/cpu_decode.cpp -- absorbed: a group of heads reads a split of the latents, once
// for scores and once for the weighted sum. Splits are counted from token 0 and added in order, so
// that neither threads nor other slots change a bit.
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

// One unit of work: heads h0 .. h0 + heads of a slot's row, keys j0 .. j0 + keys.
struct Unit {
  int64_t slot, row, position;  // position: of the new token, the last key
  int64_t h0, heads;
  int64_t split, j0, keys;
};

// Splits of all rows; with `whole` one unit a row and group, its keys left out.
std::vector<Unit> units_of(const MlaCached& a, const Sizes& s, bool whole) {
  std::vector<Unit> units;
  for (int64_t slot = 0; slot < s.S; ++slot) {
    const mla_cache::Rows rows = mla_cache::rows_of(a, slot);
    if (rows.count == 0) continue;
    for (int64_t h = 0; h < s.H; h += kMlaHeads)
      for (int64_t j = 0; j <= (whole ? 0 : rows.past); j += kMlaSplit)
        units.push_back({slot, rows.first, rows.past, h, std::min(kMlaHeads, s.H - h),
                         j / kMlaSplit, j, std::min(kMlaSplit, rows.past + 1 - j)});
  }
  return units;
}

// The queries of a unit in the space of the cache: [heads, r + rope], W_UK^T q_n and q_r.
template <class T>
void absorb(const MlaCached& a, const Sizes& s, const Unit& u, T* out) {
  const int64_t width = s.nope + s.rope, cached = s.r + s.rope;
  for (int64_t h = 0; h < u.heads; ++h, out += cached) {
    const T *q = a.q.row<T>(u.row) + (u.h0 + h) * width,
            *w = a.w_kv_b.row<T>((u.h0 + h) * (s.nope + s.V));
    gemm<T>(Transpose::no, Transpose::no, 1, s.r, s.nope, 1, q, width, w, a.w_kv_b.stride[0], 0,
            out, s.r);
    std::copy_n(q + s.nope, s.rope, out + s.r);
    if (a.rope_theta > 0) mla::rotate(out + s.r, s.rope, u.position, a.rope_theta, 1);
  }
}

// partial [H, r + 2] of a row and split: sum_j p_j c_j, then the largest score and the sum of p.
template <class T>
void attend_split(const MlaCached& a, const Sizes& s, const Unit& u, T* partial) {
  const int64_t cached = s.r + s.rope;
  const T* latents = a.latents.row<T>(u.slot) + u.j0 * cached;
  std::vector<T> q(size_t(u.heads * cached)), score(size_t(u.heads * kMlaSplit));
  absorb<T>(a, s, u, q.data());
  gemm<T>(Transpose::no, Transpose::yes, u.heads, u.keys, cached, 1 / std::sqrt(T(s.nope + s.rope)),
          q.data(), cached, latents, cached, 0, score.data(), kMlaSplit);
  partial += u.h0 * (s.r + 2);
  for (int64_t h = 0; h < u.heads; ++h) {
    T* row = &score[size_t(h * kMlaSplit)];
    const T top = *std::max_element(row, row + u.keys);
    for (int64_t j = 0; j < u.keys; ++j) row[j] = fast_exp(row[j] - top);
    partial[h * (s.r + 2) + s.r] = top;
    partial[h * (s.r + 2) + s.r + 1] = lane_sum<T>(u.keys, [&](int64_t j) { return row[j]; });
  }
  gemm<T>(Transpose::no, Transpose::no, u.heads, s.r, u.keys, 1, score.data(), kMlaSplit, latents,
          cached, 0, partial, s.r + 2);
}

// The splits of a row joined in order, then W_UV of each head. `partial` is that of split 0.
template <class T>
void join(const MlaCached& a, const Sizes& s, const Unit& u, const T* partial) {
  const int64_t splits = u.position / kMlaSplit + 1, step = s.H * (s.r + 2);
  std::vector<T> sum(size_t(s.r));
  for (int64_t h = u.h0; h < u.h0 + u.heads; ++h) {
    const T* part = partial + h * (s.r + 2);
    T top = -std::numeric_limits<T>::infinity(), total = 0;
    for (int64_t i = 0; i < splits; ++i) top = std::max(top, part[i * step + s.r]);
    std::fill(sum.begin(), sum.end(), T(0));
    for (int64_t i = 0; i < splits; ++i) {
      const T* x = part + i * step;
      const T weight = fast_exp(x[s.r] - top);
      total += weight * x[s.r + 1];
      for (int64_t d = 0; d < s.r; ++d) sum[size_t(d)] += weight * x[d];
    }
    for (T& x : sum) x /= total;
    gemm_rowwise<T>(1, s.V, s.r, sum.data(), s.r, a.w_kv_b.row<T>(h * (s.nope + s.V) + s.nope),
                    a.w_kv_b.stride[0], a.o.row<T>(u.row) + h * s.V, s.V);
  }
}

}  // namespace

void mla_decode(const Context& ctx, const MlaCached& a, Tensor partial) {
  const Sizes s = mla_cache::sizes_of(a);
  const std::vector<Unit> parts = units_of(a, s, false), rows = units_of(a, s, true);
  for_float_type(a.q, [&]<class T>(T) {
    parallel_for(ctx, int64_t(parts.size()), [&](int64_t i) {
      const Unit& u = parts[size_t(i)];
      attend_split<T>(a, s, u, partial.row<T>(u.row * s.splits() + u.split));
    });
    parallel_for(ctx, int64_t(rows.size()), [&](int64_t i) {
      const Unit& u = rows[size_t(i)];
      join<T>(a, s, u, partial.row<T>(u.row * s.splits()));
    });
  });
}

}  // namespace sluice::cpu
