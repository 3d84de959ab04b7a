// kernels/mla/sizes.h -- dimensions, and the rotation, that every back end shares.
#pragma once

#include <algorithm>
#include <cmath>

#include "kernels/mla/mla.h"

namespace sluice::mla {

struct Sizes {
  int64_t Nq, Nk, H, nope, rope, V, documents;
  int64_t longest;  // keys of a document at most
};

constexpr int64_t kHeads = 4;  // that the CPU works on at a time

// Memory of one call for G = min(H, kHeads) heads.
struct Scratch {
  Tensor q, k;  // [G, Nq or Nk, nope + rope] T
  Tensor turn;  // [Nk, rope] T, cos and sin by pair; [0, rope] without rotation
  // Backward only:
  Tensor dq, dk;  // as q, k
  Tensor dv;      // [G, Nk, V] T
  Tensor delta;   // [G, Nq] T
};

// Memory of one call on CUDA.
struct CudaScratch {
  Tensor span;       // [Nq, 2] i32: the first and the last key that a query sees
  Tensor turn;       // [Nk, rope] f32, cos and sin by pair; rotated only, as the next two
  Tensor q, k_rope;  // turned, as the inputs
  // Backward only:
  Tensor delta{};  // [Nq, H] f32
  Tensor parts{};  // [H, Nk, rope] f32: a head's share of dk_rope
};

template <class Args>
Sizes sizes_of(const Args& a) {
  const int64_t V = a.o.dim(2), nope = a.kv.dim(2) - V;
  const int64_t Nk = a.kv.dim(0);
  return {.Nq = a.q.dim(0),
          .Nk = Nk,
          .H = a.q.dim(1),
          .nope = nope,
          .rope = a.q.dim(2) - nope,
          .V = V,
          .documents = a.cu_seqlens_q.dim(0) - 1,
          .longest = a.longest > 0 ? std::min(a.longest, Nk) : Nk};
}

// Raises max_logit to the largest score of head h, if it is asked for.
inline void raise_max_logit(const MlaForward& a, int64_t h, double score) {
  if (!a.max_logit) return;
  float& top = a.max_logit.as<float>()[h];
  top = std::max(top, float(score));
}

// Rotates the pairs of x [rope] for position t, in place; `direction` -1 turns a cotangent back.
template <class T>
void rotate(T* x, int64_t rope, int64_t t, double theta, int direction) {
  for (int64_t p = 0; p < rope / 2; ++p) {
    const double angle = direction * double(t) * std::pow(theta, -2.0 * double(p) / double(rope));
    const double c = std::cos(angle), s = std::sin(angle), u = x[2 * p], v = x[2 * p + 1];
    x[2 * p] = T(u * c - v * s);
    x[2 * p + 1] = T(u * s + v * c);
  }
}

}  // namespace sluice::mla
