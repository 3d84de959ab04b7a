// kernels/gdn/reference.cpp -- the token recurrence and its hand-made backward; never optimised.
// Everything is computed in f64, whatever the tensors hold; the states are made again in backward.
#include <cmath>
#include <vector>

#include "kernels/gdn/saved.h"
#include "kernels/tensor/float_dispatch.h"

namespace sluice::reference {

using Vec = std::vector<double>;

// One value head of one token, after norm, gate and sigmoid.
struct GdnToken {
  Vec q, k, v;                    // [K] scaled by K^-1/2, [K], [V]
  double g = 0, step = 0, y = 0;  // log decay, softplus(y), logit with its bias
  double b = 0;                   // write strength: beta, or the step
  double q_norm = 0, k_norm = 0;  // 1 / sqrt(|x|^2 + eps)
};

static double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}
static double softplus(double x) {
  return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x)));
}

template <class T, class Args>
static GdnToken load(const Args& a, const gdn::Sizes& s, int64_t n, int64_t hv) {
  const int64_t h = hv / (s.HV / s.H), K = s.K;
  GdnToken t{.q = Vec(size_t(K)), .k = Vec(size_t(K)), .v = Vec(size_t(s.V))};
  const T *q = a.q.template row<T>(n) + h * K, *k = a.k.template row<T>(n) + h * K;
  double qq = 0, kk = 0;
  for (int64_t d = 0; d < K; ++d) {
    qq += double(q[d]) * q[d];
    kk += double(k[d]) * k[d];
  }
  t.q_norm = 1 / std::sqrt(qq + kGdnNormEps);
  t.k_norm = 1 / std::sqrt(kk + kGdnNormEps);
  for (int64_t d = 0; d < K; ++d) {
    t.q[size_t(d)] = q[d] * t.q_norm / std::sqrt(double(K));
    t.k[size_t(d)] = k[d] * t.k_norm;
  }
  for (int64_t j = 0; j < s.V; ++j) t.v[size_t(j)] = a.v.template row<T>(n)[hv * s.V + j];
  t.y = double(a.g.template row<T>(n)[hv]) + a.dt_bias.template as<T>()[hv];
  t.step = softplus(t.y);
  t.g = -std::exp(double(a.A_log.template as<T>()[hv])) * t.step;
  t.b = s.delta_rule ? a.params.beta_max * sigmoid(a.beta.template row<T>(n)[hv]) : t.step;
  return t;
}

// S~ = e^g S, in place; then what is written at k: v - S~^T k, or without the delta rule v.
static Vec decay_and_predict(const GdnToken& t, Vec& S, const gdn::Sizes& s) {
  Vec e = t.v;
  for (int64_t d = 0; d < s.K; ++d)
    for (int64_t j = 0; j < s.V; ++j) {
      S[size_t(d * s.V + j)] *= std::exp(t.g);
      if (s.delta_rule) e[size_t(j)] -= S[size_t(d * s.V + j)] * t.k[size_t(d)];
    }
  return e;
}
static void correct(const GdnToken& t, const Vec& e, Vec& S, const gdn::Sizes& s) {
  for (int64_t d = 0; d < s.K; ++d)
    for (int64_t j = 0; j < s.V; ++j) S[size_t(d * s.V + j)] += t.b * t.k[size_t(d)] * e[size_t(j)];
}

template <class T>
static Vec state_of(const Tensor& states, int64_t document, int64_t hv, const gdn::Sizes& s) {
  Vec S(size_t(s.K * s.V), 0);
  if (states)
    for (int64_t i = 0; i < s.K * s.V; ++i)
      S[size_t(i)] = states.row<T>(document)[hv * s.K * s.V + i];
  return S;
}

void gdn_forward(const Context&, const GdnForward& a) {
  const gdn::Sizes s = gdn::sizes_of(a);
  const int32_t* cu = a.cu_seqlens.as<int32_t>();
  for_float_type(a.q, [&]<class T>(T) {
    for (int64_t doc = 0; doc < s.documents; ++doc)
      for (int64_t hv = 0; hv < s.HV; ++hv) {
        Vec S = state_of<T>(a.initial_state, doc, hv, s);
        for (int64_t n = cu[doc]; n < cu[doc + 1]; ++n) {
          const GdnToken t = load<T>(a, s, n, hv);
          const Vec e = decay_and_predict(t, S, s);
          correct(t, e, S, s);
          for (int64_t j = 0; j < s.V; ++j) {
            double o = 0;
            for (int64_t d = 0; d < s.K; ++d) o += S[size_t(d * s.V + j)] * t.q[size_t(d)];
            a.o.row<T>(n)[hv * s.V + j] = T(o);
          }
        }
        for (int64_t i = 0; a.final_state && i < s.K * s.V; ++i)
          a.final_state.row<T>(doc)[hv * s.K * s.V + i] = T(S[size_t(i)]);
      }
  });
}

// dx = r (dxn - xn (xn . dxn)) for xn = r x; added to or written over [K] of a row.
template <class T>
static void norm_backward(const T* x, double r, const Vec& dxn, T* out, bool add) {
  double dot = 0;
  for (size_t d = 0; d < dxn.size(); ++d) dot += x[d] * r * dxn[d];
  for (size_t d = 0; d < dxn.size(); ++d) put(out[d], T(r * (dxn[d] - x[d] * r * dot)), add);
}

// From the cotangents of log decay and write strength to those of their logits.
template <class T>
static void gate_backward(const GdnBackward& a, const gdn::Sizes& s, const GdnToken& t, int64_t n,
                          int64_t hv, double dg, double db, T* parts) {
  double dstep = -std::exp(double(a.A_log.as<T>()[hv])) * dg;
  if (s.delta_rule)
    put(a.dbeta.t.row<T>(n)[hv], T(db * t.b * (1 - t.b / a.params.beta_max)), a.dbeta.add);
  else
    dstep += db;
  const double dy = dstep * sigmoid(t.y);
  put(a.dg.t.row<T>(n)[hv], T(dy), a.dg.add);
  parts[0] = T(parts[0] + dy);
  parts[1] = T(parts[1] + (dg == 0 ? 0 : dg * t.g));  // not 0 * infinity
}

// The step back through one token. D is dL/dS after it on entry, before it on return.
template <class T>
static void token_backward(const GdnBackward& a, const gdn::Sizes& s, int64_t n, int64_t hv, Vec S,
                           Vec& D, T* parts) {
  const int64_t K = s.K, V = s.V, group = s.HV / s.H, h = hv / group;
  const GdnToken t = load<T>(a, s, n, hv);
  const Vec e = decay_and_predict(t, S, s);
  Vec after = S;
  correct(t, e, after, s);
  const T* d_o = a.d_o.row<T>(n) + hv * V;

  Vec dq(size_t(K), 0), dw(size_t(K), 0), de(size_t(V), 0), dk(size_t(K), 0);
  for (int64_t d = 0; d < K; ++d)
    for (int64_t j = 0; j < V; ++j) {
      D[size_t(d * V + j)] += t.q[size_t(d)] * d_o[j];
      dq[size_t(d)] += after[size_t(d * V + j)] * d_o[j] / std::sqrt(double(K));
      dw[size_t(d)] += D[size_t(d * V + j)] * e[size_t(j)];
      de[size_t(j)] += D[size_t(d * V + j)] * t.b * t.k[size_t(d)];
    }
  double db = 0, dg = 0;
  for (int64_t d = 0; d < K; ++d) {
    dk[size_t(d)] = t.b * dw[size_t(d)];
    db += t.k[size_t(d)] * dw[size_t(d)];
    for (int64_t j = 0; j < V; ++j) {
      double& x = D[size_t(d * V + j)];
      const double before = S[size_t(d * V + j)];
      if (s.delta_rule) {  // e read the decayed state at k
        dk[size_t(d)] -= before * de[size_t(j)];
        x -= t.k[size_t(d)] * de[size_t(j)];
      }
      dg += before * x;
      x *= std::exp(t.g);
    }
  }
  const bool later = hv % group != 0;  // of the value heads that share a query head
  norm_backward(a.q.row<T>(n) + h * K, t.q_norm, dq, a.dq.t.row<T>(n) + h * K, a.dq.add || later);
  norm_backward(a.k.row<T>(n) + h * K, t.k_norm, dk, a.dk.t.row<T>(n) + h * K, a.dk.add || later);
  for (int64_t j = 0; j < V; ++j) put(a.dv.t.row<T>(n)[hv * V + j], T(de[size_t(j)]), a.dv.add);
  gate_backward<T>(a, s, t, n, hv, dg, db, parts);
}

void gdn_backward(const Context&, const GdnBackward& a, Tensor parts) {
  const gdn::Sizes s = gdn::sizes_of(a);
  const int32_t* cu = a.cu_seqlens.as<int32_t>();
  for_float_type(a.q, [&]<class T>(T) {
    std::fill_n(parts.as<T>(), parts.numel(), T(0));
    for (int64_t doc = 0; doc < s.documents; ++doc)
      for (int64_t hv = 0; hv < s.HV; ++hv) {
        std::vector<Vec> before{state_of<T>(a.initial_state, doc, hv, s)};
        for (int64_t n = cu[doc]; n < cu[doc + 1]; ++n) {
          const GdnToken t = load<T>(a, s, n, hv);
          Vec S = before.back();
          const Vec e = decay_and_predict(t, S, s);
          correct(t, e, S, s);
          before.push_back(std::move(S));
        }
        Vec D = state_of<T>(a.dfinal_state, doc, hv, s);
        for (int64_t n = cu[doc + 1] - 1; n >= cu[doc]; --n)
          token_backward<T>(a, s, n, hv, before[size_t(n - cu[doc])], D,
                            parts.row<T>(doc) + hv * 2);
        for (int64_t i = 0; a.dinitial_state && i < s.K * s.V; ++i)
          put(a.dinitial_state.t.row<T>(doc)[hv * s.K * s.V + i], T(D[size_t(i)]),
              a.dinitial_state.add);
      }
    for (int64_t hv = 0; hv < s.HV; ++hv) {
      double bias = 0, A = 0;
      for (int64_t doc = 0; doc < s.documents; ++doc) {
        bias += parts.row<T>(doc)[hv * 2];
        A += parts.row<T>(doc)[hv * 2 + 1];
      }
      put(a.ddt_bias.t.as<T>()[hv], T(bias), a.ddt_bias.add);
      put(a.dA_log.t.as<T>()[hv], T(A), a.dA_log.add);
    }
  });
}

}  // namespace sluice::reference
