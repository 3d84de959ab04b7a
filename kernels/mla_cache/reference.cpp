// kernels/mla_cache/reference.cpp -- keys and values made in full, one query at a time, in f64;
// never optimised.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/mla/sizes.h"
#include "kernels/mla_cache/sizes.h"
#include "kernels/tensor/float_dispatch.h"

namespace sluice::reference {

using mla_cache::Rows;
using mla_cache::rows_of;
using mla_cache::Sizes;
using Vec = std::vector<double>;

void latent_append(const Context&, const LatentAppend& a) {
  const int64_t S = a.latents.dim(0), r = a.c.dim(1), rope = a.k_rope.dim(1);
  for_float_type(a.c, [&]<class T>(T) {
    for (int64_t slot = 0; slot < S; ++slot) {
      const Rows rows = rows_of(a, slot);
      for (int64_t i = 0; i < rows.count; ++i) {
        Vec k(a.k_rope.row<T>(rows.first + i), a.k_rope.row<T>(rows.first + i) + rope);
        if (a.rope_theta > 0) mla::rotate(k.data(), rope, rows.past + i, a.rope_theta, 1);
        T* to = a.latents.row<T>(slot) + (rows.past + i) * (r + rope);
        for (int64_t d = 0; d < r; ++d) to[d] = a.c.row<T>(rows.first + i)[d];
        for (int64_t d = 0; d < rope; ++d) to[r + d] = T(k[size_t(d)]);
      }
    }
  });
}

// Key and value of one cached token for one head: [nope + rope], [V].
template <class T>
static void expand(const MlaCached& a, const Sizes& s, const T* latent, int64_t h, Vec& k, Vec& v) {
  for (int64_t e = 0; e < s.nope + s.V; ++e) {
    double sum = 0;
    for (int64_t d = 0; d < s.r; ++d)
      sum += double(a.w_kv_b.row<T>(h * (s.nope + s.V) + e)[d]) * latent[d];
    (e < s.nope ? k : v).push_back(sum);
  }
  k.insert(k.end(), latent + s.r, latent + s.r + s.rope);
}

template <class T>
static void attend_head(const MlaCached& a, const Sizes& s, int64_t slot, int64_t h) {
  const Rows rows = rows_of(a, slot);
  const int64_t width = s.nope + s.rope, keys = rows.past + rows.count;
  std::vector<Vec> k(static_cast<size_t>(keys)), v(static_cast<size_t>(keys));
  for (int64_t j = 0; j < keys && rows.count > 0; ++j)
    expand<T>(a, s, a.latents.row<T>(slot) + j * (s.r + s.rope), h, k[size_t(j)], v[size_t(j)]);
  for (int64_t i = 0; i < rows.count; ++i) {
    const T* from = a.q.row<T>(rows.first + i) + h * width;
    Vec q(from, from + width), score;
    const int64_t position = rows.past + i;
    if (a.rope_theta > 0) mla::rotate(q.data() + s.nope, s.rope, position, a.rope_theta, 1);
    for (int64_t j = 0; j <= position; ++j) {
      double sum = 0;
      for (int64_t d = 0; d < width; ++d) sum += q[size_t(d)] * k[size_t(j)][size_t(d)];
      score.push_back(sum / std::sqrt(double(width)));
    }
    const double top = *std::max_element(score.begin(), score.end());
    double total = 0;
    Vec o(size_t(s.V), 0);
    for (size_t j = 0; j < score.size(); ++j) {
      const double p = std::exp(score[j] - top);
      total += p;
      for (size_t e = 0; e < o.size(); ++e) o[e] += p * v[j][e];
    }
    for (int64_t e = 0; e < s.V; ++e)
      a.o.row<T>(rows.first + i)[h * s.V + e] = T(o[size_t(e)] / total);
  }
}

static void attend(const MlaCached& a) {
  const Sizes s = mla_cache::sizes_of(a);
  for_float_type(a.q, [&]<class T>(T) {
    for (int64_t slot = 0; slot < s.S; ++slot)
      for (int64_t h = 0; h < s.H; ++h) attend_head<T>(a, s, slot, h);
  });
}

void mla_prefill(const Context&, const MlaCached& a) {
  attend(a);
}
void mla_decode(const Context&, const MlaCached& a, Tensor) {
  attend(a);
}

}  // namespace sluice::reference
