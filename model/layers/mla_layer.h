// model/layers/mla_layer.h -- multi-head latent attention as a layer.
//
//   q = W_q x                                  per head [nope | rope]
//   [c | k_r] = W_kva x                        latent c [r], one key slice k_r [rope] for all heads
//   [k_n | v] per head = W_kvb RMSNorm(c)
//   y = W_o concat_h softmax_causal((q_n k_n + q_r k_r) / sqrt(nope + rope)) v
//
// NoPE: q_r and k_r are used raw; else they are rotated inside the attention. The cache holds the
// normalised latent and k_r: r + rope numbers a token. Source: arXiv:2405.04434; interop names
// there.
#pragma once

#include "model/layers/config.h"
#include "model/layers/layer.h"

namespace sluice {

class MlaLayer : public Mixer {
 public:
  MlaLayer(const ParamScope& scope, const LayerConfig& config);
  Var forward(Tape& tape, const Var& x_ND, const Sequences& seq, MixerCache* cache) const override;
  std::unique_ptr<MixerCache> make_cache(DType dtype, Device device, int64_t sequences,
                                         int64_t max_tokens) const override;
  LayerCost cost(int64_t context_tokens) const override;

 private:
  MlaConfig config_;
  double eps_;
  int64_t D_;
  ParamId q_proj_, kv_a_proj_, kv_a_norm_, kv_b_proj_, o_proj_;
};

}  // namespace sluice
