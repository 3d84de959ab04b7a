// kernels/mla_cache/sizes.h -- dimensions that every back end shares.
#pragma once

#include <algorithm>

#include "kernels/mla_cache/mla_cache.h"

namespace sluice::mla_cache {

struct Sizes {
  int64_t N, S, T, H, r, nope, rope, V;
  int64_t splits() const { return (T + kMlaSplit - 1) / kMlaSplit; }  // of a full slot
  int64_t groups() const { return (H + kMlaHeads - 1) / kMlaHeads; }  // of heads
};

inline Sizes sizes_of(const MlaCached& a) {
  const int64_t H = a.q.dim(1), V = a.o.dim(2), r = a.w_kv_b.dim(1);
  const int64_t nope = a.w_kv_b.dim(0) / std::max<int64_t>(H, 1) - V;
  return {a.q.dim(0), a.latents.dim(0), a.latents.dim(1), H, r, nope, a.latents.dim(2) - r, V};
}

// The rows of one slot in this call, and what it holds before them.
struct Rows {
  int64_t first, count, past;
};
template <class Args>
Rows rows_of(const Args& a, int64_t slot) {
  const int32_t* cu = a.cu_seqlens.template as<int32_t>();
  return {cu[slot], cu[slot + 1] - cu[slot], a.past.template as<int32_t>()[slot]};
}

}  // namespace sluice::mla_cache
