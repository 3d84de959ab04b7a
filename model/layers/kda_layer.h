// model/layers/kda_layer.h -- Kimi Delta Attention as a layer.
//
//   q, k, v = silu(conv(W_qkv x))                      one product, one convolution or none
//   z = W_fb (W_fa x),  u = W_gb (W_ga x),  b = W_b x  low-rank gates of rank head_dim
//   o = KDA(q, k, v; z, A_log, dt_bias, b)             norm of q and k, gate law and beta inside
//   y = W_o (RMSNorm_head(o) * act(u))
//
// Full-rank output gate: u = W_g x, one matrix. What reads x beside q, k and v is one product.
// Source: Kimi Linear, arXiv:2510.26692. Dims: D model width, H heads, HV value heads, K = V
// head_dim.
#pragma once

#include "kernels/gated_rmsnorm/gated_rmsnorm.h"
#include "kernels/kda/kda.h"
#include "model/layers/config.h"
#include "model/layers/layer.h"

namespace sluice {

class KdaLayer : public Mixer {
 public:
  KdaLayer(const ParamScope& scope, const LayerConfig& config);
  Var forward(Tape& tape, const Var& x_ND, const Sequences& seq,
              const MixerCache* cache) const override;
  MixerCache make_cache(DType dtype, Device device, int64_t slots,
                        int64_t max_tokens) const override;
  LayerCost cost(int64_t context_tokens) const override;

 private:
  struct Gates {
    Var decay_NHK, output_NHV, beta_NH;  // logits; no output gate: id < 0
  };
  Gates gates(Tape& tape, const Var& x_ND) const;

  KdaConfig config_;
  double eps_;
  int64_t D_, qk_width_, v_width_;      // H*K, HV*V
  int64_t gate_width_;                  // columns of fgb for the output gate: 0, V or HV*V
  ParamId qkv_proj_, qkv_conv_;         // [2*H*K + HV*V, D], [.., W] if W > 0
  ParamId fgb_proj_;                    // [K + gate width + HV, D]: gate down, output gate, beta
  ParamId f_b_proj_, A_log_, dt_bias_;  // [HV*K, K], [HV], [HV, K]
  ParamId g_b_proj_, o_norm_, o_proj_;  // [HV*V, V] of a low-rank gate, [V], [D, HV*V]
};

}  // namespace sluice
