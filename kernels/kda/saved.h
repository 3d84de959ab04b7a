// kernels/kda/saved.h -- how the chunked back end lays out what it keeps for backward.
//
// By token and value head: E [V] (prediction errors), G [K] (decay summed within the chunk), one row of
// L and of P [kKdaChunk]. By chunk and value head: S [K, V], the state that entered.
// Chunks are numbered document by document; there are at most N / 64 + documents.
#pragma once

#include "kernels/kda/kda.h"

namespace sluice::kda {

struct Sizes {
  int64_t N, documents, H, HV, K, V;
  int64_t chunks() const { return N / kKdaChunk + documents; }
  int64_t elements() const {
    return N * HV * (V + K + 2 * kKdaChunk) + chunks() * HV * K * V;
  }
};

template <class Args>
Sizes sizes_of(const Args& a) {
  return {a.q.dim(0), a.cu_seqlens.dim(0) - 1, a.q.dim(1), a.v.dim(1), a.q.dim(2), a.v.dim(2)};
}

template <class T>
struct Saved {
  Saved(T* memory, const Sizes& s) : size(s) {
    E = memory;
    G = E + s.N * s.HV * s.V;
    L = G + s.N * s.HV * s.K;
    P = L + s.N * s.HV * kKdaChunk;
    S = P + s.N * s.HV * kKdaChunk;
  }
  // Rows of one value head, the heads side by side: n, hv -> row; `stride` from token to token.
  T* e(int64_t n, int64_t hv) const { return E + (n * size.HV + hv) * size.V; }
  T* g(int64_t n, int64_t hv) const { return G + (n * size.HV + hv) * size.K; }
  T* l(int64_t n, int64_t hv) const { return L + (n * size.HV + hv) * kKdaChunk; }
  T* p(int64_t n, int64_t hv) const { return P + (n * size.HV + hv) * kKdaChunk; }
  T* s(int64_t chunk, int64_t hv) const { return S + (chunk * size.HV + hv) * size.K * size.V; }

  Sizes size;
  T *E, *G, *L, *P, *S;
};

}  // namespace sluice::kda
