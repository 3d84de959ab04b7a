// model/autograd/cache_ops.cpp -- forward only.
#include "model/autograd/cache_ops.h"

namespace sluice {

void append_latents(Tape& tape, const Var& c, const Var& k_rope, const LatentSlots& slots,
                    double rope_theta) {
  SLUICE_CHECK(!tape.recording(), "a cache takes no gradient");
  latent_append(tape.ctx(), {.c = c.value,
                             .k_rope = k_rope.value,
                             .cu_seqlens = slots.cu_seqlens,
                             .past = slots.past,
                             .latents = slots.latents,
                             .rope_theta = rope_theta});
}

Var attend_latents(Tape& tape, const LatentAttention& in, const LatentSlots& slots,
                   CacheStep step) {
  SLUICE_CHECK(!tape.recording(), "a cache takes no gradient");
  const int64_t N = in.q.value.dim(0);
  const Var o = tape.make(in.q.value.dtype, {N, in.H * in.V});
  const MlaCached a{.q = in.q.value.reshape({N, in.H, in.q.value.dim(1) / in.H}),
                    .latents = slots.latents,
                    .w_kv_b = tape.params().value(in.w_kv_b),
                    .cu_seqlens = slots.cu_seqlens,
                    .past = slots.past,
                    .o = o.value.reshape({N, in.H, in.V}),
                    .rope_theta = in.rope_theta,
                    .on_host = slots.on_host};
  step == CacheStep::decode ? mla_decode(tape.ctx(), a) : mla_prefill(tape.ctx(), a);
  return o;
}

}  // namespace sluice
