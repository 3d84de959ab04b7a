// model/autograd/cache_ops.h -- attention against a cache of latents: generation only, so the tape
// must be one that infers.
#pragma once

#include "kernels/mla_cache/mla_cache.h"
#include "model/autograd/tape.h"

namespace sluice {

// The slots of a call: kernels/mla_cache/mla_cache.h.
struct LatentSlots {
  Tensor latents;     // [S, T, r + rope]
  Tensor cu_seqlens;  // [S + 1] i32
  Tensor past;        // [S] i32
  SlotsOnHost on_host{};
};
enum class CacheStep : uint8_t {
  prefill,  // any number of tokens a sequence
  decode,   // at most one: the kernels that read a cache fastest
};

// Stores c [N, r] and k_rope [N, rope], rotated if theta > 0.
void append_latents(Tape& tape, const Var& c, const Var& k_rope, const LatentSlots& slots,
                    double rope_theta);

struct LatentAttention {
  Var q;           // [N, H * (nope + rope)]
  ParamId w_kv_b;  // [H * (nope + V), r]
  int64_t H, V;
  double rope_theta;
};
// Of the tokens just stored: [N, H * V].
Var attend_latents(Tape& tape, const LatentAttention& in, const LatentSlots& slots, CacheStep step);

}  // namespace sluice
