// kernels/mla/reference.cpp -- one query at a time, in f64; never optimised.
#include <algorithm>
#include <vector>

#include "kernels/mla/sizes.h"
#include "kernels/tensor/float_dispatch.h"

namespace sluice::reference {

using Vec = std::vector<double>;

template <class T, class Args>
static Vec query(const Args& a, const mla::Sizes& s, int64_t n, int64_t h, int64_t position) {
  const int64_t width = s.nope + s.rope;
  const T* q = a.q.template row<T>(n) + h * width;
  Vec x(q, q + width);
  if (a.rope_theta > 0) mla::rotate(x.data() + s.nope, s.rope, position, a.rope_theta, 1);
  return x;
}
template <class T, class Args>
static Vec key(const Args& a, const mla::Sizes& s, int64_t n, int64_t h, int64_t position) {
  const T* k = a.kv.template row<T>(n) + h * (s.nope + s.V);
  Vec x(k, k + s.nope);
  for (int64_t d = 0; d < s.rope; ++d) x.push_back(a.k_rope.template row<T>(n)[d]);
  if (a.rope_theta > 0) mla::rotate(x.data() + s.nope, s.rope, position, a.rope_theta, 1);
  return x;
}
static double dot(const Vec& a, const Vec& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// body(doc, query row, its position, first key row) for every query.
template <class Args, class Body>
static void for_queries(const Args& a, const mla::Sizes& s, Body body) {
  const int32_t *cq = a.cu_seqlens_q.template as<int32_t>(),
                *ck = a.cu_seqlens_k.template as<int32_t>();
  for (int64_t doc = 0; doc < s.documents; ++doc) {
    const int64_t before = (ck[doc + 1] - ck[doc]) - (cq[doc + 1] - cq[doc]);
    for (int64_t n = cq[doc]; n < cq[doc + 1]; ++n) body(n, before + n - cq[doc], int64_t(ck[doc]));
  }
}

void mla_forward(const Context&, const MlaForward& a, const mla::Scratch&) {
  const mla::Sizes s = mla::sizes_of(a);
  const double scale = 1 / std::sqrt(double(s.nope + s.rope));
  for_float_type(a.q, [&]<class T>(T) {
    for_queries(a, s, [&](int64_t n, int64_t position, int64_t first) {
      for (int64_t h = 0; h < s.H; ++h) {
        const Vec q = query<T>(a, s, n, h, position);
        Vec score;
        for (int64_t j = 0; j <= position; ++j)
          score.push_back(scale * dot(q, key<T>(a, s, first + j, h, j)));
        const double top = *std::max_element(score.begin(), score.end());
        mla::raise_max_logit(a, h, top);
        double sum = 0;
        for (double x : score) sum += std::exp(x - top);
        const double lse = top + std::log(sum);
        Vec o(size_t(s.V), 0);
        for (int64_t j = 0; j <= position; ++j)
          for (int64_t e = 0; e < s.V; ++e)
            o[size_t(e)] += std::exp(score[size_t(j)] - lse) *
                            a.kv.row<T>(first + j)[h * (s.nope + s.V) + s.nope + e];
        for (int64_t e = 0; e < s.V; ++e) a.o.row<T>(n)[h * s.V + e] = T(o[size_t(e)]);
        a.lse.row<T>(n)[h] = T(lse);
      }
    });
  });
}

void mla_backward(const Context&, const MlaBackward& a, const mla::Scratch&) {
  const mla::Sizes s = mla::sizes_of(a);
  const double scale = 1 / std::sqrt(double(s.nope + s.rope));
  const int64_t kw = s.nope + s.rope, vw = s.nope + s.V;
  for_float_type(a.q, [&]<class T>(T) {
    std::vector<Vec> dk(size_t(s.Nk * s.H), Vec(size_t(kw), 0)), dv(dk.size(), Vec(size_t(s.V), 0));
    for_queries(a, s, [&](int64_t n, int64_t position, int64_t first) {
      for (int64_t h = 0; h < s.H; ++h) {
        const Vec q = query<T>(a, s, n, h, position);
        const T *d_o = a.d_o.row<T>(n) + h * s.V, *o = a.o.row<T>(n) + h * s.V;
        double delta = 0;
        for (int64_t e = 0; e < s.V; ++e) delta += double(d_o[e]) * o[e];
        Vec dq(size_t(kw), 0);
        for (int64_t j = 0; j <= position; ++j) {
          const Vec k = key<T>(a, s, first + j, h, j);
          const T* v = a.kv.row<T>(first + j) + h * vw + s.nope;
          const double p = std::exp(scale * dot(q, k) - a.lse.row<T>(n)[h]);
          const size_t at = size_t((first + j) * s.H + h);
          double dp = 0;
          for (int64_t e = 0; e < s.V; ++e) {
            dp += double(d_o[e]) * v[e];
            dv[at][size_t(e)] += p * d_o[e];
          }
          const double ds = p * (dp - delta) * scale;
          for (int64_t d = 0; d < kw; ++d) {
            dq[size_t(d)] += ds * k[size_t(d)];
            dk[at][size_t(d)] += ds * q[size_t(d)];
          }
        }
        if (a.rope_theta > 0) mla::rotate(dq.data() + s.nope, s.rope, position, a.rope_theta, -1);
        for (int64_t d = 0; d < kw; ++d)
          put(a.dq.t.row<T>(n)[h * kw + d], T(dq[size_t(d)]), a.dq.add);
      }
    });
    const int32_t* ck = a.cu_seqlens_k.as<int32_t>();
    for (int64_t doc = 0; doc < s.documents; ++doc)
      for (int64_t n = ck[doc]; n < ck[doc + 1]; ++n) {
        Vec shared(size_t(s.rope), 0);
        for (int64_t h = 0; h < s.H; ++h) {
          Vec& k = dk[size_t(n * s.H + h)];
          if (a.rope_theta > 0)
            mla::rotate(k.data() + s.nope, s.rope, n - ck[doc], a.rope_theta, -1);
          for (int64_t d = 0; d < s.nope; ++d)
            put(a.dkv.t.row<T>(n)[h * vw + d], T(k[size_t(d)]), a.dkv.add);
          for (int64_t e = 0; e < s.V; ++e)
            put(a.dkv.t.row<T>(n)[h * vw + s.nope + e], T(dv[size_t(n * s.H + h)][size_t(e)]),
                a.dkv.add);
          for (int64_t d = 0; d < s.rope; ++d) shared[size_t(d)] += k[size_t(s.nope + d)];
        }
        for (int64_t d = 0; d < s.rope; ++d)
          put(a.dk_rope.t.row<T>(n)[d], T(shared[size_t(d)]), a.dk_rope.add);
      }
  });
}

}  // namespace sluice::reference
