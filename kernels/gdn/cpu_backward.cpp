// kernels/gdn/cpu_backward.cpp -- chunked backward in the E-form, chunks last to first.
//
// With D = dL/dS' and the forward's S, E, L, P; R_ij = e^{G_i - G_j}:
//   dE = P^T dO + e^{G_C-G} W D,   X = (I + L)^-T dE = dV,   N = tril(dO E^T),   M = -strict_tril(X
//   E^T) a = e^G (dO S^T) + (N R) W                                     cotangent of the scaled
//   query r = -e^G (X S^T) + (M R) W                                     of k as a reader c =
//   e^{G_C-G} (E D^T) + (N R)^T Q + (M R)^T K                  of w = write * k
// Without the delta rule L = 0, E = V and X reads nothing: M and r are left out. What belongs to dO
// and what belongs to -X is stacked, two sets of C rows, where one GEMM serves both.
#include <algorithm>

#include "kernels/gdn/chunk.h"
#include "kernels/gemm/gemm.h"
#include "kernels/tensor/float_dispatch.h"
#include "kernels/tensor/lanes.h"

namespace sluice::cpu {

using namespace gdn;

namespace {

template <class T>
struct Work {
  explicit Work(const Sizes& s)
      : memory(Chunk<T>::elements(s) + Workspace<T>::rounded(s.K * s.V) +
               kGdnChunk * (2 * Workspace<T>::rounded(s.V) + 3 * Workspace<T>::rounded(s.K) +
                            2 * kGdnChunk + 2)),
        c(s, memory),
        sets(s.delta_rule ? 2 : 1),
        D(memory.take(s.K * s.V)),
        out(memory.take(2 * kGdnChunk * s.V)),
        N(memory.take(2 * kGdnChunk * kGdnChunk)),
        a(memory.take(2 * kGdnChunk * s.K)),
        cc(memory.take(kGdnChunk * s.K)),
        dg(memory.take(kGdnChunk)),
        columns(memory.take(kGdnChunk)) {}

  Workspace<T> memory;
  Chunk<T> c;
  int64_t sets;  // of rows: those of dO, and of the delta rule those of -X
  T* D;          // [K, V] dL/dS
  T* out;        // [2C, V] dO, then -X
  T* N;          // [2C, 64] N, then M; later times R
  T* a;          // [2C, K] cotangent of q, then of k as a reader
  T* cc;         // [C, K] cotangent of w
  T* dg;         // [C]
  T* columns;    // [C] sums of columns of the pairs' gradient
};

// What a chunk was in the forward pass. L is null without the delta rule.
template <class T>
struct Kept {
  const T *P, *L, *S;
  const T* E;
  int64_t es;  // elements from one row of E to the next
};

// w.out: dO and -X of the chunk.
template <class T>
void solve_errors(const GdnBackward& a, Work<T>& w, const Kept<T>& kept, int64_t n0, int64_t hv) {
  const Chunk<T>& c = w.c;
  const int64_t K = c.K, V = c.V, C = c.C, ld = kGdnChunk;
  T *dO = w.out, *X = w.out + C * V;
  for (int64_t i = 0; i < C; ++i) std::copy_n(a.d_o.row<T>(n0 + i) + hv * V, V, dO + i * V);
  gemm<T>(Transpose::no, Transpose::no, C, V, K, -1, c.w, K, w.D, V, 0, X, V);
  scale_rows(c.to_end(), C, V, X);
  for (int64_t j = 0; j < C; j += kHalf) {  // P is lower triangular
    const int64_t columns = std::min(C - j, kHalf);
    gemm<T>(Transpose::yes, Transpose::no, columns, V, C - j, -1, kept.P + j * ld + j, ld,
            dO + j * V, V, 1, X + j * V, V);
  }
  if (kept.L) solve_unit_lower<T>(Transpose::yes, C, V, kept.L, ld, X, V);
}

// dg_m += sum of Z over the pairs j < m <= i that decay over token m, Z = N P + M L. Column sums
// grow row by row: nothing is subtracted that would leave its rounding where all is forgotten.
template <class T>
void decay_gradient_of_pairs(Work<T>& w, const Kept<T>& kept) {
  const int64_t C = w.c.C, ld = kGdnChunk;
  std::fill_n(w.columns, C, T(0));
  for (int64_t m = C - 1; m > 0; --m) {
    const T *N = w.N + m * ld, *P = kept.P + m * ld;
    for (int64_t j = 0; j < m; ++j) w.columns[j] += N[j] * P[j];
    if (kept.L) {
      const T *M = w.N + (C + m) * ld, *L = kept.L + m * ld;
      for (int64_t j = 0; j < m; ++j) w.columns[j] += M[j] * L[j];
    }
    w.dg[m] += lane_sum<T>(m, [&](int64_t j) { return w.columns[j]; });
  }
}

// N and M, and what they bring to dg; then N R and M R in their place.
template <class T>
void pairs(Work<T>& w, const Kept<T>& kept) {
  const Chunk<T>& c = w.c;
  const int64_t C = c.C, ld = kGdnChunk;
  gemm<T>(Transpose::no, Transpose::yes, w.sets * C, C, c.V, 1, w.out, c.V, kept.E, kept.es, 0, w.N,
          ld);
  decay_gradient_of_pairs(w, kept);
  for (int64_t i = 0; i < C; ++i)
    for (int64_t j = 0; j < C; ++j) w.N[i * ld + j] *= c.decay[i * ld + j];
  for (int64_t i = 0; w.sets == 2 && i < C; ++i) {
    T* M = w.N + (C + i) * ld;
    for (int64_t j = 0; j < i; ++j) M[j] *= c.decay[i * ld + j];
    std::fill(M + i, M + C, T(0));
  }
}

// The parts of a, r and c that come through the states, with their dg; D of the chunk before.
template <class T>
void through_states(Work<T>& w, const Kept<T>& kept) {
  const Chunk<T>& c = w.c;
  const int64_t K = c.K, V = c.V, C = c.C;
  gemm<T>(Transpose::no, Transpose::yes, w.sets * C, K, V, 1, w.out, V, kept.S, V, 0, w.a, K);
  gemm<T>(Transpose::no, Transpose::yes, C, K, V, 1, kept.E, kept.es, w.D, V, 0, w.cc, K);
  for (int64_t part = 0; part < w.sets; ++part) scale_rows(c.from_start, C, K, w.a + part * C * K);
  scale_rows(c.to_end(), C, K, w.cc);

  T right = 0;  // tokens >= m read the state that entered
  for (int64_t m = C - 1; m >= 0; --m) {
    for (int64_t part = 0; part < w.sets; ++part)
      right += dot(c.q + (part * C + m) * K, w.a + (part * C + m) * K, K);
    w.dg[m] = right;
  }
  T left = c.gamma() * dot(kept.S, w.D, K * V);  // it, and tokens < m, go on into the next chunk
  for (int64_t m = 0; m < C; ++m) {
    w.dg[m] += left;
    left += dot(c.w + m * K, w.cc + m * K, K);
  }
}

template <class T>
void state_gradient(Work<T>& w) {  // D = gamma D + Q^T e^G dO - K^T e^G X; w.out is used up
  const Chunk<T>& c = w.c;
  for (int64_t part = 0; part < w.sets; ++part)
    scale_rows(c.from_start, c.C, c.V, w.out + part * c.C * c.V);
  gemm<T>(Transpose::yes, Transpose::no, c.K, c.V, w.sets * c.C, 1, c.q, c.K, w.out, c.V, c.gamma(),
          w.D, c.V);
}

// Through write strength and gate; their logits' gradients, and the sums of parts [2].
template <class T>
void gate_backward(const GdnBackward& a, const Sizes& s, Work<T>& w, int64_t n0, int64_t hv,
                   T* parts) {
  const Chunk<T>& c = w.c;
  const T A = fast_exp(a.A_log.as<T>()[hv]);
  for (int64_t i = 0; i < c.C; ++i) {
    const int64_t n = n0 + i;
    const T db = dot(c.k() + i * c.K, w.cc + i * c.K, c.K), b = c.write[i];
    T dstep = -A * w.dg[i];
    if (s.delta_rule)
      put(a.dbeta.t.row<T>(n)[hv], db * b * (1 - b / T(a.params.beta_max)), a.dbeta.add);
    else
      dstep += db;
    const T dy = dstep * fast_sigmoid(c.y[i]);
    put(a.dg.t.row<T>(n)[hv], dy, a.dg.add);
    parts[0] += dy;
    parts[1] += w.dg[i] == 0 ? T(0) : w.dg[i] * c.g[i];  // not 0 * infinity
  }
}

// The chunk's gradients into the caller's tensors; dv before w.out is used up.
template <class T>
void store_values(const GdnBackward& a, const Work<T>& w, int64_t n0, int64_t hv) {
  const int64_t V = w.c.V, C = w.c.C;
  for_flag(a.dv.add, [&](auto add) {
    for (int64_t i = 0; i < C; ++i) {
      T* __restrict dv = a.dv.t.row<T>(n0 + i) + hv * V;
      const T* x = w.out + (C + i) * V;
      for (int64_t j = 0; j < V; ++j) put(dv[j], -x[j], add);
    }
  });
}
template <class T>
void store_keys(const GdnBackward& a, const Sizes& s, const Work<T>& w, int64_t n0, int64_t hv) {
  const Chunk<T>& c = w.c;
  const int64_t K = s.K, group = s.HV / s.H, h = hv / group;
  const bool later = hv % group != 0;  // of the value heads that share a query head
  for (int64_t i = 0; i < c.C; ++i) {
    const int64_t n = n0 + i;
    T* __restrict dk = w.cc + i * K;
    const T b = c.write[i];
    if (s.delta_rule) {
      const T* r = w.a + (c.C + i) * K;
      for (int64_t d = 0; d < K; ++d) dk[d] = b * dk[d] + r[d];
    } else {
      for (int64_t d = 0; d < K; ++d) dk[d] *= b;
    }
    norm_backward(a.q.row<T>(n) + h * K, c.q_norm[i], w.a + i * K, 1 / std::sqrt(T(K)), K,
                  a.dq.t.row<T>(n) + h * K, a.dq.add || later);
    norm_backward(a.k.row<T>(n) + h * K, c.k_norm[i], dk, T(1), K, a.dk.t.row<T>(n) + h * K,
                  a.dk.add || later);
  }
}

template <class T>
void chunk_backward(const GdnBackward& a, const Sizes& s, Work<T>& w, const Kept<T>& kept,
                    int64_t n0, int64_t C, int64_t hv, T* parts) {
  Chunk<T>& c = w.c;
  const int64_t K = s.K, ld = kGdnChunk;
  load_tokens(a, s, n0, C, hv, c);
  fill_decays(c);
  solve_errors(a, w, kept, n0, hv);
  store_values(a, w, n0, hv);
  through_states(w, kept);
  pairs(w, kept);
  gemm<T>(Transpose::no, Transpose::no, w.sets * C, K, C, 1, w.N, ld, c.w, K, 1, w.a, K);
  gemm<T>(Transpose::yes, Transpose::no, C, K, w.sets * C, 1, w.N, ld, c.q, K, 1, w.cc, K);
  state_gradient(w);
  gate_backward(a, s, w, n0, hv, parts);
  store_keys(a, s, w, n0, hv);
}

template <class T>
void head_backward(const GdnBackward& a, const Sizes& s, const Saved<T>& saved, int64_t doc,
                   int64_t hv, int64_t first_chunk, Work<T>& w, T* parts) {
  const int32_t* cu = a.cu_seqlens.as<int32_t>();
  const int64_t state = s.K * s.V, begin = cu[doc], end = cu[doc + 1];
  parts[0] = parts[1] = 0;
  if (a.dfinal_state)
    std::copy_n(a.dfinal_state.row<T>(doc) + hv * state, state, w.D);
  else
    std::fill_n(w.D, state, T(0));
  for (int64_t chunk = (end - begin + kGdnChunk - 1) / kGdnChunk - 1; chunk >= 0; --chunk) {
    const int64_t n0 = begin + chunk * kGdnChunk;
    Kept<T> kept{saved.p(n0, hv), saved.l(n0, hv), saved.s(first_chunk + chunk, hv),
                 saved.e(n0, hv), s.V};
    if (!s.delta_rule) kept.E = a.v.row<T>(n0) + hv * s.V, kept.es = a.v.stride[0];
    chunk_backward(a, s, w, kept, n0, std::min(end - n0, kGdnChunk), hv, parts);
  }
  if (!a.dinitial_state) return;
  T* out = a.dinitial_state.t.row<T>(doc) + hv * state;
  for (int64_t i = 0; i < state; ++i) put(out[i], w.D[i], a.dinitial_state.add);
}

}  // namespace

void gdn_backward(const Context& ctx, const GdnBackward& a, Tensor parts) {
  const Sizes s = sizes_of(a);
  const int64_t group = s.HV / s.H;
  const std::vector<int64_t> first_chunk = first_chunks(a.cu_seqlens, kGdnChunk);
  for_float_type(a.q, [&]<class T>(T) {
    const Saved<T> saved(static_cast<T*>(a.saved.data), s);
    // One query head a unit: its value heads add to the same dq and dk, in order.
    parallel_for(ctx, s.documents * s.H, [&](int64_t unit) {
      const int64_t doc = unit / s.H, h = unit % s.H;
      Work<T> w(s);
      for (int64_t hv = h * group; hv < (h + 1) * group; ++hv)
        head_backward<T>(a, s, saved, doc, hv, first_chunk[size_t(doc)], w,
                         parts.row<T>(doc) + hv * 2);
    });
    for (int64_t hv = 0; hv < s.HV; ++hv) {
      T bias = 0, A = 0;
      for (int64_t doc = 0; doc < s.documents; ++doc) {
        bias += parts.row<T>(doc)[hv * 2];
        A += parts.row<T>(doc)[hv * 2 + 1];
      }
      put(a.ddt_bias.t.as<T>()[hv], bias, a.ddt_bias.add);
      put(a.dA_log.t.as<T>()[hv], A, a.dA_log.add);
    }
  });
}

}  // namespace sluice::cpu
