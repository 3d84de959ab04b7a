// model/layers/linear_attention.h -- what surrounds the recurrence in every linear-attention layer.
//
//   q, k, v = silu(conv(W_qkv x))                 one product, one convolution or none
//   y = W_o (RMSNorm_head(o) * act(u))            o [HV*V] of the recurrence, u the output gate:
//                                                 W_gb (W_ga x) of rank head_dim, W_g x, or none
//
// W_ga or W_g is a part of the product with all that reads x beside q, k and v: the layer's own.
// Source: Kimi Linear, arXiv:2510.26692. Dims: D model width, H heads, HV value heads, K = V
// head_dim, W taps.
#pragma once

#include "kernels/gated_rmsnorm/gated_rmsnorm.h"
#include "model/autograd/mixer_ops.h"
#include "model/layers/config.h"
#include "model/layers/layer.h"

namespace sluice {

class ConvQkv {
 public:
  ConvQkv(const ParamScope& scope, const KdaConfig& config, int64_t D);
  std::vector<Var> forward(Tape& tape, const Var& x_ND, const Sequences& seq,
                           const MixerCache* cache) const;  // q, k [N, H*K], v [N, HV*V]
  double weights() const;                                   // that one token meets

  // The cache of a whole layer: its matrix state, and the inputs of the convolution.
  MixerCache make_cache(DType dtype, Device device, int64_t slots) const;
  // [slots, HV, K, V], if there is a cache; kept in the type of sums.
  static RecurrentState matrix_state(const MixerCache* cache, CacheStep step);

 private:
  Var convolve(Tape& tape, const Var& x, const SequenceExchange& exchange) const;

  KdaConfig config_;
  int64_t D_, qk_width_, v_width_;  // H*K, HV*V
  ParamId proj_, conv_;             // [2*H*K + HV*V, D], [.., W] if W > 0
};

class GatedOutput {
 public:
  GatedOutput(const ParamScope& scope, const LayerConfig& config);
  // What the layer's product makes for the gate: rows 0, V or HV*V.
  static RowBlock logit_rows(const KdaConfig& config);
  // logits: [N, logit_rows], or no gate: id < 0.
  Var forward(Tape& tape, const Var& o, const Var& logits) const;
  double weights() const;  // that one token meets, W_ga or W_g not counted

 private:
  bool low_rank() const { return config_.output_gate != "none" && !config_.use_full_rank_gate; }

  KdaConfig config_;
  double eps_;
  int64_t D_, v_width_;
  ParamId g_b_proj_, norm_, proj_;  // [HV*V, V] of a low-rank gate, [V], [D, HV*V]
};

}  // namespace sluice
