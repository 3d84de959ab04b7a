// kernels/kda/saved.h -- how the chunked back end lays out what it keeps for backward.
//
// By value head and token: E [V] (prediction errors), a row of L and one of P [kKdaChunk]. By chunk
// and value head: S [K, V], the state that entered. The log decays are made again from the logits.
// Chunks are numbered document by document; there are at most N / 64 + documents.
#pragma once

#include "kernels/kda/kda.h"

namespace sluice::kda {

struct Sizes {
  int64_t N, documents, H, HV, K, V;
  int64_t chunks() const { return N / kKdaChunk + documents; }
  int64_t elements() const { return N * HV * (V + 2 * kKdaChunk) + chunks() * HV * K * V; }
};

template <class Args>
Sizes sizes_of(const Args& a) {
  return {a.q.dim(0), a.cu_seqlens.dim(0) - 1, a.q.dim(1), a.v.dim(1), a.q.dim(2), a.v.dim(2)};
}

// Rows of consecutive tokens lie side by side: [HV, N, V] and [HV, N, kKdaChunk].
template <class T>
struct Saved {
  Saved(T* memory, const Sizes& s) : size(s) {
    E = memory;
    L = E + s.N * s.HV * s.V;
    P = L + s.N * s.HV * kKdaChunk;
    S = P + s.N * s.HV * kKdaChunk;
  }
  T* e(int64_t n, int64_t hv) const { return E + (hv * size.N + n) * size.V; }
  T* l(int64_t n, int64_t hv) const { return L + (hv * size.N + n) * kKdaChunk; }
  T* p(int64_t n, int64_t hv) const { return P + (hv * size.N + n) * kKdaChunk; }
  T* s(int64_t chunk, int64_t hv) const { return S + (chunk * size.HV + hv) * size.K * size.V; }

  Sizes size;
  T *E, *L, *P, *S;
};

}  // namespace sluice::kda
