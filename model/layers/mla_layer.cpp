// model/layers/mla_layer.cpp -- projections around the attention core, and the latent cache.
#include "model/layers/mla_layer.h"

#include "model/autograd/basic_ops.h"
#include "model/autograd/mixer_ops.h"
#include "model/autograd/sequence_ops.h"

namespace sluice {

MlaLayer::MlaLayer(const ParamScope& scope, const LayerConfig& config)
    : config_(config.mla), eps_(config.rms_norm_eps), D_(config.hidden_size) {
  const int64_t H = config_.num_attention_heads, r = config_.kv_lora_rank;
  const int64_t nope = config_.qk_nope_head_dim, rope = config_.qk_rope_head_dim;
  if (config_.q_lora_rank) {
    const int64_t rank = *config_.q_lora_rank;
    q_a_proj_ = scope.matrix("q_a_proj", rank, D_);
    q_a_norm_ = scope.norm_weight("q_a_layernorm", rank);
    q_b_proj_ = scope.head_matrix("q_b_proj", {H, nope, rope}, nope + rope, rank);
  } else {
    q_proj_ = scope.head_matrix("q_proj", {H, nope, rope}, nope + rope, D_);
  }
  kv_a_proj_ = scope.matrix("kv_a_proj_with_mqa", r + rope, D_);
  kv_a_norm_ = scope.norm_weight("kv_a_layernorm", r);
  kv_b_proj_ = scope.head_matrix("kv_b_proj", {H, nope, 0}, nope + config_.v_head_dim, r);
  if (config_.use_output_gate) g_proj_ = scope.matrix("g_proj", H * config_.v_head_dim, D_);
  o_proj_ = scope.matrix("o_proj", D_, H * config_.v_head_dim);
}

Var MlaLayer::queries(Tape& tape, const Var& x) const {
  if (!config_.q_lora_rank) return linear(tape, x, q_proj_);
  return linear(tape, rmsnorm(tape, linear(tape, x, q_a_proj_), q_a_norm_, eps_), q_b_proj_);
}

Var MlaLayer::forward(Tape& tape, const Var& x, const Sequences& seq,
                      const MixerCache* cache) const {
  const int64_t r = config_.kv_lora_rank, rope = config_.qk_rope_head_dim;
  const Var q = queries(tape, x);
  Var latents = linear(tape, x, kv_a_proj_);
  if (seq.exchange) latents = gather_key_rows(tape, latents, *seq.exchange);
  const std::vector<Var> kv_a = tape.split(latents, {r, rope});
  const Var c = rmsnorm(tape, kv_a[0], kv_a_norm_, eps_);
  const Var o =
      cache ? attend_cached(tape, q, c, kv_a[1], seq, *cache) : attend(tape, q, c, kv_a[1], seq);
  if (!config_.use_output_gate) return linear(tape, o, o_proj_);
  return linear(tape, sigmoid_gate(tape, o, linear(tape, x, g_proj_)), o_proj_);
}

Var MlaLayer::attend(Tape& tape, const Var& q, const Var& c, const Var& k_rope,
                     const Sequences& seq) const {
  const Var kv = linear(tape, c, kv_b_proj_);
  return mla_attention(tape,
                       {.q = q,
                        .kv = kv,
                        .k_rope = k_rope,
                        .H = config_.num_attention_heads,
                        .nope = config_.qk_nope_head_dim,
                        .rope = config_.qk_rope_head_dim,
                        .V = config_.v_head_dim,
                        .rope_theta = rope_theta(),
                        .longest = seq.longest,
                        .w_kv_b = kv_b_proj_},
                       seq.cu_seqlens, seq.exchange ? seq.exchange->keys() : seq.cu_seqlens);
}

Var MlaLayer::attend_cached(Tape& tape, const Var& q, const Var& c, const Var& k_rope,
                            const Sequences& seq, const MixerCache& cache) const {
  const LatentSlots slots{cache.rows.at(0).view(), seq.cu_seqlens, seq.past, seq.on_host};
  append_latents(tape, c, k_rope, slots, rope_theta());
  return attend_latents(tape,
                        {.q = q,
                         .w_kv_b = kv_b_proj_,
                         .H = config_.num_attention_heads,
                         .V = config_.v_head_dim,
                         .rope_theta = rope_theta()},
                        slots, seq.step);
}

MixerCache MlaLayer::make_cache(DType dtype, Device device, int64_t slots,
                                int64_t max_tokens) const {
  const int64_t width = config_.kv_lora_rank + config_.qk_rope_head_dim;
  MixerCache cache;
  cache.rows.push_back(Buffer(dtype, {slots, max_tokens, width}, device));
  return cache;
}

LayerCost MlaLayer::cost(int64_t context_tokens) const {
  const double H = double(config_.num_attention_heads), r = double(config_.kv_lora_rank);
  const double nope = double(config_.qk_nope_head_dim), rope = double(config_.qk_rope_head_dim);
  const double V = double(config_.v_head_dim), D = double(D_);
  const double q_width = H * (nope + rope), rank = double(config_.q_lora_rank.value_or(0));
  const double q = config_.q_lora_rank ? rank * (D + q_width) : D * q_width;
  const double weights =
      q + D * (r + rope) + r * H * (nope + V) + D * H * V * (config_.use_output_gate ? 2 : 1);
  // Scores and sums against half the context on average: causal.
  return {.matmul = 2 * weights,
          .sequence = 2 * H * (nope + rope + V) * double(context_tokens) / 2};
}

}  // namespace sluice
