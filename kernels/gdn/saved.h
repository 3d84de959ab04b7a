// kernels/gdn/saved.h -- how the chunked back end lays out what it keeps for backward.
//
// By value head and token: a row of P [kGdnChunk]; of the delta rule E [V] (prediction errors) and
// a row of L [kGdnChunk] as well. By chunk and value head: S [K, V], the state that entered. Chunks
// are numbered document by document; there are at most N / 64 + documents.
#pragma once

#include "kernels/gdn/gdn.h"

namespace sluice::gdn {

struct Sizes {
  int64_t N, documents, H, HV, K, V;
  bool delta_rule;
  int64_t chunks() const { return N / kGdnChunk + documents; }
  int64_t elements() const {
    const int64_t row = delta_rule ? V + 2 * kGdnChunk : kGdnChunk;
    return N * HV * row + chunks() * HV * K * V;
  }
};

template <class Args>
Sizes sizes_of(const Args& a) {
  return {a.q.dim(0), a.cu_seqlens.dim(0) - 1, a.q.dim(1), a.v.dim(1), a.q.dim(2),
          a.v.dim(2), a.params.delta_rule};
}

// Rows of consecutive tokens lie side by side: [HV, N, V] and [HV, N, kGdnChunk].
template <class T>
struct Saved {
  Saved(T* memory, const Sizes& s) : size(s) {
    P = memory;
    S = P + s.N * s.HV * kGdnChunk;
    L = S + s.chunks() * s.HV * s.K * s.V;
    E = L + s.N * s.HV * kGdnChunk;
  }
  T* p(int64_t n, int64_t hv) const { return P + (hv * size.N + n) * kGdnChunk; }
  T* s(int64_t chunk, int64_t hv) const { return S + (chunk * size.HV + hv) * size.K * size.V; }
  T* l(int64_t n, int64_t hv) const {  // null without the delta rule
    return size.delta_rule ? L + (hv * size.N + n) * kGdnChunk : nullptr;
  }
  T* e(int64_t n, int64_t hv) const {
    return size.delta_rule ? E + (hv * size.N + n) * size.V : nullptr;
  }

  Sizes size;
  T *P, *S, *L, *E;
};

}  // namespace sluice::gdn
