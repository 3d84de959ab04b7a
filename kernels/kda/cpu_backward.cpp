// kernels/kda/cpu_backward.cpp -- chunked backward in the E-form, chunks last to first.
//
// With D = dL/dS' and the forward's S, E, L, P:
//   dE = P^T dO + K- D,   X = (I + L)^-T dE = dV,   N = tril(dO E^T),   M = -strict_tril(X E^T)
//   a = e^G (dO S^T) + sum_{j<i} N_ij w_j e^{G_i-G_j}           cotangent of the scaled query
//   r = -e^G (X S^T) + sum_{j<i} M_ij w_j e^{G_i-G_j}           of k as a reader
//   c = e^{G_C-G} (E D^T) + sum_{i>j} (N_ij q_i + M_ij k_i) e^{G_i-G_j}     of w = beta k
// The terms i = j of N cancel in dG, so they join a and c after it (README.md).
#include "kernels/kda/chunk.h"
#include "kernels/tensor/float_dispatch.h"

namespace sluice::cpu {

using namespace kda;

namespace {

template <class T>
struct Work {
  explicit Work(const Sizes& s)
      : c(s),
        D(s.K * s.V),
        X(kKdaChunk * s.V),
        N(kKdaChunk * kKdaChunk),
        M(kKdaChunk * kKdaChunk),
        a(kKdaChunk * s.K),
        r(kKdaChunk * s.K),
        cc(kKdaChunk * s.K),
        tmp(kKdaChunk * s.K),
        dG(kKdaChunk * s.K),
        last(s.K) {}

  Chunk<T> c;
  std::vector<T> D;        // [K, V] dL/dS
  std::vector<T> X;        // [C, V]
  std::vector<T> N, M;     // [C, 64]
  std::vector<T> a, r, cc; // [C, K] cotangents of q, k, w
  std::vector<T> tmp, dG;  // [C, K]
  std::vector<T> last;     // [K] what the chunk's last row of dG gets on top
};

// rows[i] of the block (N rows, then M rows behind) times the pair factors, both ways.
template <class T>
void pair_sweeps(Work<T>& w, const T* G, int64_t gs, int64_t first, int64_t count, int64_t begin,
                 int64_t end, int64_t anchor) {
  Chunk<T>& c = w.c;
  const int64_t K = c.K, width = end - begin, ld = kKdaChunk;
  const T *N = &w.N[size_t(first * ld + begin)], *M = &w.M[size_t(first * ld + begin)];
  pair_factors(c, G, gs, first, count, begin, end, anchor);
  const T* at = G + anchor * gs;

  // Row sweep: a_i, r_i += e^{G_i - anchor} * sum_j (N, M)_ij columns_j.
  for (const bool reader : {false, true}) {
    gemm<T>(Transpose::no, Transpose::no, count, K, width, 1, reader ? M : N, ld,
            &c.columns[size_t(begin * K)], K, 0, w.tmp.data(), K);
    T* out = (reader ? w.r : w.a).data();
    for (int64_t i = 0; i < count; ++i) {
      const T* g = G + (first + i) * gs;
      T* to = out + (first + i) * K;
      for (int64_t d = 0; d < K; ++d) to[d] += fast_exp(g[d] - at[d]) * w.tmp[size_t(i * K + d)];
    }
  }
  // Column sweep: c_j += e^{anchor - G_j} * sum_i N_ij q_i e^{G_i - anchor} + M_ij k_i e^{..}.
  gemm<T>(Transpose::yes, Transpose::no, width, K, count, 1, N, ld, c.rows.data(), K, 0,
          w.tmp.data(), K);
  gemm<T>(Transpose::yes, Transpose::no, width, K, count, 1, M, ld, &c.rows[size_t(count * K)], K, 1,
          w.tmp.data(), K);
  for (int64_t j = 0; j < width * K; ++j)
    w.cc[size_t(begin * K + j)] += c.decay[size_t(begin * K + j)] * w.tmp[size_t(j)];
}

// The same for the pairs i > j within a sub-block, one by one.
template <class T>
void diagonal_sweeps(Work<T>& w, const T* G, int64_t gs, int64_t first, int64_t count) {
  Chunk<T>& c = w.c;
  const int64_t K = c.K;
  if (middle_anchor_is_safe(c, G, gs, first, count))
    return pair_sweeps(w, G, gs, first, count, first, first + count, first + count / 2);
  for (int64_t i = first; i < first + count; ++i)
    for (int64_t j = first; j < i; ++j) {
      const T n = w.N[size_t(i * kKdaChunk + j)], m = w.M[size_t(i * kKdaChunk + j)];
      const T *gi = G + i * gs, *gj = G + j * gs;
      for (int64_t d = 0; d < K; ++d) {
        const T x = fast_exp(gi[d] - gj[d]);
        w.a[size_t(i * K + d)] += n * x * c.w[size_t(j * K + d)];
        w.r[size_t(i * K + d)] += m * x * c.w[size_t(j * K + d)];
        w.cc[size_t(j * K + d)] += x * (n * c.q[size_t(i * K + d)] + m * c.k[size_t(i * K + d)]);
      }
    }
}

// X, N and M, the parts of a, r, c that come through the states, and D of the chunk before.
template <class T>
void through_states(const KdaBackward& a, Work<T>& w, const Saved<T>& saved, int64_t n0, int64_t hv,
                    int64_t chunk) {
  Chunk<T>& c = w.c;
  const int64_t K = c.K, V = c.V, C = c.C, ld = kKdaChunk;
  const int64_t gs = saved.size.HV * K, es = saved.size.HV * V, ls = saved.size.HV * ld;
  const T *G = saved.g(n0, hv), *E = saved.e(n0, hv), *S = saved.s(chunk, hv);
  const T *dO = a.d_o.row<T>(n0) + hv * V, *G_last = G + (C - 1) * gs;
  const int64_t os = a.d_o.stride[0];
  T *D = w.D.data(), *X = w.X.data(), *tmp = w.tmp.data();

  for (int64_t i = 0; i < C; ++i)  // K- = w e^{G_C - G}
    for (int64_t d = 0; d < K; ++d)
      tmp[i * K + d] = c.w[size_t(i * K + d)] * fast_exp(G_last[d] - G[i * gs + d]);
  gemm<T>(Transpose::no, Transpose::no, C, V, K, 1, tmp, K, D, V, 0, X, V);
  gemm<T>(Transpose::yes, Transpose::no, C, V, C, 1, saved.p(n0, hv), ls, dO, os, 1, X, V);
  solve_unit_lower<T>(Transpose::yes, C, V, saved.l(n0, hv), ls, X, V);

  gemm<T>(Transpose::no, Transpose::yes, C, C, V, 1, dO, os, E, es, 0, w.N.data(), ld);
  gemm<T>(Transpose::no, Transpose::yes, C, C, V, -1, X, V, E, es, 0, w.M.data(), ld);

  gemm<T>(Transpose::no, Transpose::yes, C, K, V, 1, dO, os, S, V, 0, w.a.data(), K);
  gemm<T>(Transpose::no, Transpose::yes, C, K, V, -1, X, V, S, V, 0, w.r.data(), K);
  gemm<T>(Transpose::no, Transpose::yes, C, K, V, 1, E, es, D, V, 0, w.cc.data(), K);
  for (int64_t d = 0; d < K; ++d)
    w.last[size_t(d)] = fast_exp(G_last[d]) *
                        lane_sum<T>(V, [&](int64_t j) { return S[d * V + j] * D[d * V + j]; });

  // D of the chunk before, with Q+ = q e^G and K+ = k e^G in turn.
  for (int64_t d = 0; d < K; ++d) {
    const T gamma = fast_exp(G_last[d]);
    for (int64_t j = 0; j < V; ++j) D[d * V + j] *= gamma;
  }
  for (const bool reader : {false, true}) {
    const std::vector<T>& x = reader ? c.k : c.q;
    T* grad = (reader ? w.r : w.a).data();
    for (int64_t i = 0; i < C; ++i)
      for (int64_t d = 0; d < K; ++d) {
        const T e = fast_exp(G[i * gs + d]);
        grad[i * K + d] *= e;
        tmp[i * K + d] = x[size_t(i * K + d)] * e;
      }
    if (reader)
      gemm<T>(Transpose::yes, Transpose::no, K, V, C, -1, tmp, K, X, V, 1, D, V);
    else
      gemm<T>(Transpose::yes, Transpose::no, K, V, C, 1, tmp, K, dO, os, 1, D, V);
  }
  for (int64_t i = 0; i < C; ++i)
    for (int64_t d = 0; d < K; ++d) {
      T& x = w.cc[size_t(i * K + d)];
      x *= fast_exp(G_last[d] - G[i * gs + d]);
      w.last[size_t(d)] += c.w[size_t(i * K + d)] * x;
    }
}

// a, r, c are complete: dG, its sum from the right, and the diagonal of N.
template <class T>
void finish_decay(Work<T>& w, const std::vector<T>& diagonal) {
  Chunk<T>& c = w.c;
  const int64_t K = c.K, C = c.C;
  for (int64_t i = C - 1; i >= 0; --i) {
    const T *q = &c.q[size_t(i * K)], *k = &c.k[size_t(i * K)], *wk = &c.w[size_t(i * K)];
    T *a = &w.a[size_t(i * K)], *r = &w.r[size_t(i * K)], *cc = &w.cc[size_t(i * K)];
    T* dG = &w.dG[size_t(i * K)];
    const T* right = i == C - 1 ? w.last.data() : dG + K;
    const T n = diagonal[size_t(i)];
    for (int64_t d = 0; d < K; ++d) {
      dG[d] = right[d] + q[d] * a[d] + k[d] * r[d] - wk[d] * cc[d];
      a[d] += n * wk[d];
      cc[d] += n * q[d];
    }
  }
}

// dx = r (dxn - xn (xn . dxn)), xn = x r: [K] of a row, added or written.
template <class T>
void norm_backward(const T* x, T r, const T* dxn, T scale, int64_t K, T* out, bool add) {
  const T dot = r * lane_sum<T>(K, [&](int64_t d) { return x[d] * dxn[d]; });
  for (int64_t d = 0; d < K; ++d) {
    const T g = scale * r * (dxn[d] - x[d] * r * dot);
    out[d] = add ? out[d] + g : g;
  }
}

template <class T>
void gate_backward(const KdaBackward& a, const Work<T>& w, int64_t n0, int64_t hv, T* parts) {
  const int64_t K = w.c.K;
  const T A = fast_exp(a.A_log.as<T>()[hv]), lb = T(a.params.gate_lower_bound);
  const T* bias = a.dt_bias.row<T>(hv);
  for (int64_t i = 0; i < w.c.C; ++i) {
    const T *z = a.g.row<T>(n0 + i) + hv * K, *dg = &w.dG[size_t(i * K)];
    T* out = a.dg.t.row<T>(n0 + i) + hv * K;
    const bool add = a.dg.add;
    if (a.params.gate == GateLaw::softplus) {
      parts[K] += lane_sum<T>(K, [&](int64_t d) { return -A * fast_softplus(z[d] + bias[d]) * dg[d]; });
      for (int64_t d = 0; d < K; ++d) {
        const T dy = -A * fast_sigmoid(z[d] + bias[d]) * dg[d];
        out[d] = add ? out[d] + dy : dy;
        parts[d] += dy;
      }
    } else {
      for (int64_t d = 0; d < K; ++d) {
        const T y = z[d] + bias[d], p = fast_sigmoid(A * y), dz = dg[d] * lb * p * (1 - p);
        const T dy = A * dz;
        out[d] = add ? out[d] + dy : dy;
        parts[d] += dy;
        parts[K] += dz == 0 ? 0 : dz * A * y;  // not 0 * infinity
      }
    }
  }
}

// Cotangents of the chunk's tokens into the caller's tensors.
template <class T>
void store_chunk(const KdaBackward& a, const Sizes& s, Work<T>& w, int64_t n0, int64_t hv, T* parts) {
  const int64_t K = s.K, V = s.V, group = s.HV / s.H, h = hv / group;
  const bool later = hv % group != 0;  // of the value heads that share a query head
  const T scale = 1 / std::sqrt(T(K));
  for (int64_t i = 0; i < w.c.C; ++i) {
    const int64_t n = n0 + i;
    const T b = w.c.beta[size_t(i)];
    T *r = &w.r[size_t(i * K)], *cc = &w.cc[size_t(i * K)];
    const T* k = &w.c.k[size_t(i * K)];
    const T db = lane_sum<T>(K, [&](int64_t d) { return k[d] * cc[d]; });
    put(a.dbeta.t.row<T>(n)[hv], db * b * (1 - b / T(a.params.beta_max)), a.dbeta.add);
    for (int64_t d = 0; d < K; ++d) r[d] += b * cc[d];
    norm_backward(a.q.row<T>(n) + h * K, w.c.q_norm[size_t(i)], &w.a[size_t(i * K)], scale, K,
                  a.dq.t.row<T>(n) + h * K, a.dq.add || later);
    norm_backward(a.k.row<T>(n) + h * K, w.c.k_norm[size_t(i)], r, T(1), K,
                  a.dk.t.row<T>(n) + h * K, a.dk.add || later);
    T* dv = a.dv.t.row<T>(n) + hv * V;
    for (int64_t j = 0; j < V; ++j) put(dv[j], w.X[size_t(i * V + j)], a.dv.add);
  }
  gate_backward(a, w, n0, hv, parts);
}

template <class T>
void head_backward(const KdaBackward& a, const Sizes& s, const Saved<T>& saved, int64_t doc,
                   int64_t hv, int64_t first_chunk, T* parts) {
  const int32_t* cu = a.cu_seqlens.as<int32_t>();
  const int64_t state = s.K * s.V, T_doc = cu[doc + 1] - cu[doc], gs = s.HV * s.K;
  Work<T> w(s);
  std::fill(w.D.begin(), w.D.end(), T(0));
  if (a.dfinal_state) std::copy_n(a.dfinal_state.row<T>(doc) + hv * state, state, w.D.data());
  std::vector<T> diagonal(kKdaChunk);
  for (int64_t chunk = (T_doc + kKdaChunk - 1) / kKdaChunk - 1; chunk >= 0; --chunk) {
    const int64_t n0 = cu[doc] + chunk * kKdaChunk, C = std::min(cu[doc + 1] - n0, kKdaChunk);
    load_chunk(a, s, n0, C, hv, w.c);
    through_states(a, w, saved, n0, hv, first_chunk + chunk);
    for (int64_t i = 0; i < C; ++i) {  // strictly lower from here on
      diagonal[size_t(i)] = w.N[size_t(i * kKdaChunk + i)];
      for (int64_t j = i; j < C; ++j) w.N[size_t(i * kKdaChunk + j)] = w.M[size_t(i * kKdaChunk + j)] = 0;
    }
    const T* G = saved.g(n0, hv);
    for (int64_t first = 0; first < C; first += kSub) {
      const int64_t count = std::min(C - first, kSub);
      if (first > 0) pair_sweeps(w, G, gs, first, count, 0, first, first);
      diagonal_sweeps(w, G, gs, first, count);
    }
    finish_decay(w, diagonal);
    store_chunk(a, s, w, n0, hv, parts);
  }
  if (!a.dinitial_state) return;
  T* out = a.dinitial_state.t.row<T>(doc) + hv * state;
  for (int64_t i = 0; i < state; ++i) put(out[i], w.D[size_t(i)], a.dinitial_state.add);
}

}  // namespace

void kda_backward(const Context& ctx, const KdaBackward& a, Tensor parts) {
  const Sizes s = sizes_of(a);
  const int64_t group = s.HV / s.H;
  const std::vector<int64_t> first_chunk = first_chunks(a.cu_seqlens);
  for_float_type(a.q, [&]<class T>(T) {
    const Saved<T> saved(static_cast<T*>(a.saved.data), s);
    // One query head a unit: its value heads add to the same dq and dk, in order.
    parallel_for(ctx, s.documents * s.H, [&](int64_t unit) {
      const int64_t doc = unit / s.H, h = unit % s.H;
      for (int64_t hv = h * group; hv < (h + 1) * group; ++hv) {
        T* part = parts.row<T>(doc) + hv * (s.K + 1);
        std::fill_n(part, s.K + 1, T(0));
        head_backward<T>(a, s, saved, doc, hv, first_chunk[size_t(doc)], part);
      }
    });
    for (int64_t hv = 0; hv < s.HV; ++hv)
      for (int64_t d = 0; d <= s.K; ++d) {
        T sum = 0;
        for (int64_t doc = 0; doc < s.documents; ++doc) sum += parts.row<T>(doc)[hv * (s.K + 1) + d];
        if (d < s.K)
          put(a.ddt_bias.t.row<T>(hv)[d], sum, a.ddt_bias.add);
        else
          put(a.dA_log.t.as<T>()[hv], sum, a.dA_log.add);
      }
  });
}

}  // namespace sluice::cpu
