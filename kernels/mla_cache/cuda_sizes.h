// kernels/mla_cache/cuda_sizes.h -- how the CUDA back end cuts a context, and its scratch.
#pragma once

#include "kernels/mla_cache/sizes.h"

#ifdef __CUDACC__
#define SLUICE_BOTH __host__ __device__
#else
#define SLUICE_BOTH
#endif

namespace sluice::cuda::mla_cache_gpu {

constexpr int64_t kMostLatent = 512, kMostRope = 64;
constexpr int kTile = 64;         // keys
constexpr int kMostSplits = 132;  // of one row: a CTA a multiprocessor for a long context alone
constexpr int64_t kBlock = 8192;  // keys that prefill expands at a time

// A row's keys are read by as many CTAs as there are splits of so many keys: a function of the
// row's own keys and of the number of slots, never of what other slots hold. More slots make
// enough work without short splits, whose sums would cost as much traffic as the keys.
struct Splits {
  int least;  // keys

  SLUICE_BOTH int length(int keys) const {
    const int tiles = (keys + kTile - 1) / kTile;
    const int even = (tiles + kMostSplits - 1) / kMostSplits * kTile;
    return even > least ? even : least;
  }
  SLUICE_BOTH int count(int keys) const {
    const int each = length(keys);
    return (keys + each - 1) / each;
  }
};
inline Splits splits_of(int64_t S) {
  return {int(std::clamp<int64_t>(32 * S / kTile * kTile, 128, 2048))};
}
// Most splits of any length up to T keys.
inline int64_t most_splits(int64_t S, int64_t T) {
  const Splits s = splits_of(S);
  return std::min<int64_t>(kMostSplits, (T + s.least - 1) / s.least);
}

struct DecodeScratch {
  Tensor q;      // [N, H, r + rope] bf16, in the space of the cache
  Tensor sums;   // [N, splits, H, r] f32: sum_j p_j c_j of a split
  Tensor stats;  // [N, splits, H, 2] f32: its largest score, in units of log 2, and sum_j p_j
  Tensor o;      // [N, H, r] bf16
};
struct PrefillScratch {
  Tensor kv;     // [keys of a block, H * (nope + V)] bf16
  Tensor q;      // [N, H, nope + rope] bf16, rotated; [0, ..] if there is nothing to rotate
  Tensor sums;   // [N, H, V] f32, over the blocks so far
  Tensor stats;  // [N, H, 2] f32: largest score, in units of log 2, and sum
};

}  // namespace sluice::cuda::mla_cache_gpu

#undef SLUICE_BOTH
