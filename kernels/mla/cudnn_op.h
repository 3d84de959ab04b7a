// kernels/mla/cudnn_op.h -- which calls cuDNN does, and the memory of one.
#pragma once

#include "kernels/mla/sizes.h"

namespace sluice::mla {

// Documents are then all of that length: cuDNN need not be told where they begin. (Of others than
// multiples of 128 its frontend makes padded ones, by a copy from the host.)
inline bool equal_lengths(const Sizes& s) {
  return s.documents * s.longest == s.Nq && s.longest % 128 == 0;
}

// By shape alone: as many keys as queries (so each document's are the same), and the widths of
// heads that were tried: with others, of documents of uneven lengths, a kernel of cuDNN 9.14 ended
// in an illegal instruction. In strict order equal lengths only: of others its gradients were not
// the same twice, whatever its deterministic mode promises.
inline bool by_cudnn(const Sizes& s, Determinism determinism) {
  return s.Nq == s.Nk && s.nope + s.rope == 192 && s.V == 128 && s.rope % 8 == 0 &&
         s.longest >= 128 && (determinism == Determinism::fast || equal_lengths(s));
}

// The backward whose sums have one order keeps a head's ds of all documents, each as if it were the
// longest.
inline int64_t in_order_bytes(const Sizes& s) {
  const int64_t queries = (s.longest + 63) / 64 * 64, keys = (s.longest + 127) / 128 * 128;
  return s.documents * queries * keys * 2;
}
// Heads of one call of it; 0: too much memory.
inline int64_t heads_in_order(const Sizes& s) {
  constexpr int64_t kMost = int64_t(2) << 30, kGoal = int64_t(1) << 30;
  if (in_order_bytes(s) > kMost) return 0;
  int64_t heads = s.H;
  while (heads > 1 && (s.H % heads != 0 || heads * in_order_bytes(s) > kGoal)) --heads;
  return heads;
}

constexpr int kCudnnOffsets = 8;
struct CudnnScratch {
  CudaScratch turned;
  Tensor k;        // [Nk, H, nope + rope] T
  Tensor lengths;  // [documents] i32
  Tensor offsets;  // [kCudnnOffsets, documents + 1] i64
  // f32, as many as lse has: lse, or the largest score and the sum of exp below it (forward that is
  // asked for largest logits); none if lse is where cuDNN looks for it.
  Tensor statistic, sum{};
  Tensor workspace;  // [bytes] u8
  // Backward: as q, k and [Nk, H, V]; dq and dv only if cuDNN may not write the gradients.
  Tensor dq{}, dk{}, dv{};
  int64_t heads_in_order = 0;  // of one call of backward in strict order; 0: all at once, in any
};

void forward_by_cudnn(const Context& ctx, const MlaForward& a);
void backward_by_cudnn(const Context& ctx, const MlaBackward& a, int64_t heads_in_order);

}  // namespace sluice::mla
