// model/layers/mla_layer.h -- multi-head latent attention as a layer.
//
//   q = W_q x                                  per head [nope | rope]; with q-LoRA
//                                              W_qb RMSNorm(W_qa x)
//   [c | k_r] = W_kva x                        latent c [r], one key slice k_r [rope] for all heads
//   [k_n | v] per head = W_kvb RMSNorm(c)
//   o = concat_h softmax_causal((q_n k_n + q_r k_r) / sqrt(nope + rope)) v
//   y = W_o o; with an output gate             W_o (o * sigmoid(W_g x))
//
// NoPE: q_r and k_r are used raw; else they are rotated inside the attention. The cache holds the
// normalised latent and k_r (rotated): r + rope numbers a token. Source: arXiv:2405.04434; interop
// names there.
#pragma once

#include "model/layers/config.h"
#include "model/layers/layer.h"

namespace sluice {

class MlaLayer : public Mixer {
 public:
  MlaLayer(const ParamScope& scope, const LayerConfig& config);
  Var forward(Tape& tape, const Var& x_ND, const Sequences& seq,
              const MixerCache* cache) const override;
  MixerCache make_cache(DType dtype, Device device, int64_t slots,
                        int64_t max_tokens) const override;
  LayerCost cost(int64_t context_tokens) const override;

 private:
  Var queries(Tape& tape, const Var& x_ND) const;  // [N, H*(nope+rope)]
  Var attend(Tape& tape, const Var& q, const Var& c, const Var& k_rope, const Sequences& seq) const;
  Var attend_cached(Tape& tape, const Var& q, const Var& c, const Var& k_rope, const Sequences& seq,
                    const MixerCache& cache) const;
  double rope_theta() const { return config_.use_nope ? 0 : config_.rope_theta; }

  MlaConfig config_;
  double eps_;
  int64_t D_;
  ParamId q_proj_;                 // [H*(nope+rope), D], or of a low rank:
  ParamId q_a_proj_, q_a_norm_;    // [q_lora_rank, D], [q_lora_rank]
  ParamId q_b_proj_;               // [H*(nope+rope), q_lora_rank]
  ParamId kv_a_proj_, kv_a_norm_;  // [r+rope, D], [r]
  ParamId kv_b_proj_;              // [H*(nope+V), r]
  ParamId g_proj_;                 // [H*V, D], if the output is gated
  ParamId o_proj_;                 // [D, H*V]
};

}  // namespace sluice
