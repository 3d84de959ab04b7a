// kernels/kda/reference.cpp -- the token recurrence and its hand-made backward; never optimised.
// Everything is computed in f64, whatever the tensors hold; the states are made again in backward.
#include <cmath>
#include <vector>

#include "kernels/kda/saved.h"
#include "kernels/tensor/float_dispatch.h"

namespace sluice::reference {

using Vec = std::vector<double>;

// One value head of one token, after norm, gate and sigmoid.
struct Token {
  Vec q, k, g, v;  // [K] scaled by K^-1/2, [K], [K] log decay, [V]
  double b = 0;
  double q_norm = 0, k_norm = 0;  // 1 / sqrt(|x|^2 + eps)
};

static double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}

template <class T, class Args>
static Token load(const Args& a, const kda::Sizes& s, int64_t n, int64_t hv) {
  const int64_t h = hv / (s.HV / s.H), K = s.K;
  Token t{Vec(size_t(K)), Vec(size_t(K)), Vec(size_t(K)), Vec(size_t(s.V)), 0, 0, 0};
  const T *q = a.q.template row<T>(n) + h * K, *k = a.k.template row<T>(n) + h * K;
  double qq = 0, kk = 0;
  for (int64_t d = 0; d < K; ++d) {
    qq += double(q[d]) * q[d];
    kk += double(k[d]) * k[d];
  }
  t.q_norm = 1 / std::sqrt(qq + kKdaNormEps);
  t.k_norm = 1 / std::sqrt(kk + kKdaNormEps);
  const double A = std::exp(double(a.A_log.template as<T>()[hv]));
  for (int64_t d = 0; d < K; ++d) {
    t.q[size_t(d)] = q[d] * t.q_norm / std::sqrt(double(K));
    t.k[size_t(d)] = k[d] * t.k_norm;
    const double y = double(a.g.template row<T>(n)[hv * K + d]) + a.dt_bias.template row<T>(hv)[d];
    t.g[size_t(d)] = kda_log_decay(a.params, A, y);
  }
  for (int64_t e = 0; e < s.V; ++e) t.v[size_t(e)] = a.v.template row<T>(n)[hv * s.V + e];
  t.b = a.params.beta_max * sigmoid(a.beta.template row<T>(n)[hv]);
  return t;
}

// S~ = e^g S, in place; then e = v - S~^T k.
static Vec decay_and_predict(const Token& t, Vec& S, int64_t K, int64_t V) {
  Vec e = t.v;
  for (int64_t d = 0; d < K; ++d) {
    const double decay = std::exp(t.g[size_t(d)]);
    for (int64_t j = 0; j < V; ++j) {
      S[size_t(d * V + j)] *= decay;
      e[size_t(j)] -= S[size_t(d * V + j)] * t.k[size_t(d)];
    }
  }
  return e;
}
static void correct(const Token& t, const Vec& e, Vec& S, int64_t K, int64_t V) {
  for (int64_t d = 0; d < K; ++d)
    for (int64_t j = 0; j < V; ++j) S[size_t(d * V + j)] += t.b * t.k[size_t(d)] * e[size_t(j)];
}

template <class T>
static Vec state_of(const Tensor& states, int64_t document, int64_t hv, const kda::Sizes& s) {
  Vec S(size_t(s.K * s.V), 0);
  if (states)
    for (int64_t i = 0; i < s.K * s.V; ++i)
      S[size_t(i)] = states.row<T>(document)[hv * s.K * s.V + i];
  return S;
}

void kda_forward(const Context&, const KdaForward& a) {
  const kda::Sizes s = kda::sizes_of(a);
  const int32_t* cu = a.cu_seqlens.as<int32_t>();
  for_float_type(a.q, [&]<class T>(T) {
    for (int64_t doc = 0; doc < s.documents; ++doc)
      for (int64_t hv = 0; hv < s.HV; ++hv) {
        Vec S = state_of<T>(a.initial_state, doc, hv, s);
        for (int64_t n = cu[doc]; n < cu[doc + 1]; ++n) {
          const Token t = load<T>(a, s, n, hv);
          const Vec e = decay_and_predict(t, S, s.K, s.V);
          correct(t, e, S, s.K, s.V);
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

template <class T>
static void gate_backward(const KdaBackward& a, const kda::Sizes& s, const Token& t, int64_t n,
                          int64_t hv, const Vec& dg, T* parts) {
  const double A = std::exp(double(a.A_log.as<T>()[hv])), lb = a.params.gate_lower_bound;
  for (int64_t d = 0; d < s.K; ++d) {
    const double y = double(a.g.row<T>(n)[hv * s.K + d]) + a.dt_bias.row<T>(hv)[d];
    double dy, dA;
    if (a.params.gate == GateLaw::softplus) {
      dy = -A * sigmoid(y) * dg[size_t(d)];
      dA = dg[size_t(d)] == 0 ? 0 : dg[size_t(d)] * t.g[size_t(d)];  // not 0 * infinity
    } else {
      const double p = sigmoid(A * y), dz = dg[size_t(d)] * lb * p * (1 - p);
      dy = A * dz;
      dA = dz == 0 ? 0 : dz * A * y;
    }
    put(a.dg.t.row<T>(n)[hv * s.K + d], T(dy), a.dg.add);
    parts[d] = T(parts[d] + dy);
    parts[s.K] = T(parts[s.K] + dA);
  }
}

// The step back through one token. D is dL/dS after it on entry, before it on return.
template <class T>
static void token_backward(const KdaBackward& a, const kda::Sizes& s, int64_t n, int64_t hv, Vec S,
                           Vec& D, T* parts) {
  const int64_t K = s.K, V = s.V, group = s.HV / s.H, h = hv / group;
  const Token t = load<T>(a, s, n, hv);
  const Vec e = decay_and_predict(t, S, K, V);
  Vec after = S;
  correct(t, e, after, K, V);
  const T* d_o = a.d_o.row<T>(n) + hv * V;

  Vec dq(size_t(K), 0), dw(size_t(K), 0), de(size_t(V), 0), dk(size_t(K), 0), dg(size_t(K), 0);
  for (int64_t d = 0; d < K; ++d)
    for (int64_t j = 0; j < V; ++j) {
      D[size_t(d * V + j)] += t.q[size_t(d)] * d_o[j];
      dq[size_t(d)] += after[size_t(d * V + j)] * d_o[j] / std::sqrt(double(K));
      dw[size_t(d)] += D[size_t(d * V + j)] * e[size_t(j)];
      de[size_t(j)] += D[size_t(d * V + j)] * t.b * t.k[size_t(d)];
    }
  double db = 0;
  for (int64_t d = 0; d < K; ++d) {
    dk[size_t(d)] = t.b * dw[size_t(d)];
    db += t.k[size_t(d)] * dw[size_t(d)];
    const double decay = std::exp(t.g[size_t(d)]);
    for (int64_t j = 0; j < V; ++j) {
      double& x = D[size_t(d * V + j)];
      const double before = S[size_t(d * V + j)];
      dk[size_t(d)] -= before * de[size_t(j)];
      x -= t.k[size_t(d)] * de[size_t(j)];
      dg[size_t(d)] += before * x;
      x *= decay;
    }
  }
  const bool later = hv % group != 0;  // of the value heads that share a query head
  norm_backward(a.q.row<T>(n) + h * K, t.q_norm, dq, a.dq.t.row<T>(n) + h * K, a.dq.add || later);
  norm_backward(a.k.row<T>(n) + h * K, t.k_norm, dk, a.dk.t.row<T>(n) + h * K, a.dk.add || later);
  for (int64_t j = 0; j < V; ++j) put(a.dv.t.row<T>(n)[hv * V + j], T(de[size_t(j)]), a.dv.add);
  put(a.dbeta.t.row<T>(n)[hv], T(db * t.b * (1 - t.b / a.params.beta_max)), a.dbeta.add);
  gate_backward<T>(a, s, t, n, hv, dg, parts);
}

void kda_backward(const Context&, const KdaBackward& a, Tensor parts) {
  const kda::Sizes s = kda::sizes_of(a);
  const int32_t* cu = a.cu_seqlens.as<int32_t>();
  for_float_type(a.q, [&]<class T>(T) {
    std::fill_n(parts.as<T>(), parts.numel(), T(0));
    for (int64_t doc = 0; doc < s.documents; ++doc)
      for (int64_t hv = 0; hv < s.HV; ++hv) {
        std::vector<Vec> before{state_of<T>(a.initial_state, doc, hv, s)};
        for (int64_t n = cu[doc]; n < cu[doc + 1]; ++n) {
          const Token t = load<T>(a, s, n, hv);
          Vec S = before.back();
          const Vec e = decay_and_predict(t, S, s.K, s.V);
          correct(t, e, S, s.K, s.V);
          before.push_back(std::move(S));
        }
        Vec D = state_of<T>(a.dfinal_state, doc, hv, s);
        for (int64_t n = cu[doc + 1] - 1; n >= cu[doc]; --n)
          token_backward<T>(a, s, n, hv, before[size_t(n - cu[doc])], D,
                            parts.row<T>(doc) + hv * (s.K + 1));
        for (int64_t i = 0; a.dinitial_state && i < s.K * s.V; ++i)
          put(a.dinitial_state.t.row<T>(doc)[hv * s.K * s.V + i], T(D[size_t(i)]),
              a.dinitial_state.add);
      }
    for (int64_t hv = 0; hv < s.HV; ++hv)
      for (int64_t d = 0; d <= s.K; ++d) {
        double sum = 0;
        for (int64_t doc = 0; doc < s.documents; ++doc)
          sum += parts.row<T>(doc)[hv * (s.K + 1) + d];
        if (d < s.K)
          put(a.ddt_bias.t.row<T>(hv)[d], T(sum), a.ddt_bias.add);
        else
          put(a.dA_log.t.as<T>()[hv], T(sum), a.dA_log.add);
      }
  });
}

}  // namespace sluice::reference

double sluice::kda_log_decay(const KdaParams& params, double A, double y) {
  if (params.gate == GateLaw::bounded) return params.gate_lower_bound * reference::sigmoid(A * y);
  return -A * (std::max(y, 0.0) + std::log1p(std::exp(-std::abs(y))));
}
