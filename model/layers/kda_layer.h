// model/layers/kda_layer.h -- Kimi Delta Attention as a layer.
//
//   q, k, v of linear_attention.h
//   z = W_fb (W_fa x),  b = W_b x                      low-rank decay gate of rank head_dim
//   o = KDA(q, k, v; z, A_log, dt_bias, b)             norm of q and k, gate law and beta inside
//   y = gated output of linear_attention.h
//
// Source: Kimi Linear, arXiv:2510.26692. Dims: D model width, H heads, HV value heads, K = V
// head_dim.
#pragma once

#include "model/layers/linear_attention.h"

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
  KdaConfig config_;
  int64_t D_;
  ConvQkv qkv_;
  ParamId fgb_proj_;                    // [K + gate rows + HV, D]: gate down, output gate, beta
  ParamId f_b_proj_, A_log_, dt_bias_;  // [HV*K, K], [HV], [HV, K]
  GatedOutput output_;
};

}  // namespace sluice
