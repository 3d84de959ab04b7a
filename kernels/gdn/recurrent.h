// kernels/gdn/recurrent.h -- token by token, for documents too short for a chunk: decoding.
#pragma once

#include "kernels/gdn/chunk.h"

namespace sluice::gdn {

// Below this many tokens the recurrence's two passes over the state cost less than a chunk's GEMMs.
constexpr int64_t kShort = 16;

// Tokens begin .. end of one value head. S [K, V]: the state before them, then after.
template <class T>
void recurrent_forward(const GdnForward& a, const Sizes& s, int64_t begin, int64_t end, int64_t hv,
                       T* __restrict S) {
  const int64_t K = s.K, V = s.V;
  Workspace<T> memory(Chunk<T>::elements(s) + 2 * Workspace<T>::rounded(V));
  Chunk<T> c(s, memory);
  T* __restrict e = memory.take(V), * __restrict o = memory.take(V);
  for (int64_t n = begin; n < end; ++n) {
    load_tokens(a, s, n, 1, hv, c);
    const T decay = fast_exp(c.g[0]);
    std::copy_n(a.v.row<T>(n) + hv * V, V, e);
    for (int64_t d = 0; s.delta_rule && d < K; ++d) {
      const T k = decay * c.k()[d];
      for (int64_t j = 0; j < V; ++j) e[j] -= S[d * V + j] * k;
    }
    std::fill_n(o, V, T(0));
    for (int64_t d = 0; d < K; ++d) {
      const T w = c.w[d], q = c.q[d];
      for (int64_t j = 0; j < V; ++j) {
        S[d * V + j] = decay * S[d * V + j] + w * e[j];
        o[j] += S[d * V + j] * q;
      }
    }
    std::copy_n(o, V, a.o.row<T>(n) + hv * V);
  }
}

}  // namespace sluice::gdn
