// model/layers/kda_layer.cpp -- projections, convolution, KDA, gated norm.
#include "model/layers/kda_layer.h"

#include <cmath>

#include "model/autograd/basic_ops.h"
#include "model/autograd/mixer_ops.h"

namespace sluice {

// Of MixerCache::state.
enum : size_t {
  kState,  // [slots, HV, K, V]
  kConv,   // [slots, C, W-1], the inputs before the next token; none without a convolution
};

// Columns of fgb that the output gate takes.
static int64_t gate_width(const KdaConfig& c) {
  if (c.output_gate == "none") return 0;
  return c.use_full_rank_gate ? c.num_value_heads * c.head_dim : c.head_dim;
}

KdaLayer::KdaLayer(const ParamScope& scope, const LayerConfig& config)
    : config_(config.kda),
      eps_(config.rms_norm_eps),
      D_(config.hidden_size),
      qk_width_(config.kda.num_heads * config.kda.head_dim),
      v_width_(config.kda.num_value_heads * config.kda.head_dim),
      gate_width_(gate_width(config.kda)) {
  const int64_t K = config_.head_dim, HV = config_.num_value_heads, C = 2 * qk_width_ + v_width_;
  const int64_t W = config_.short_conv_kernel_size;
  qkv_proj_ = scope.matrix("qkv_proj", C, D_,
                           {{"q_proj", qk_width_}, {"k_proj", qk_width_}, {"v_proj", v_width_}});
  if (W > 0) {
    const double range = 1 / std::sqrt(double(W));
    qkv_conv_ =
        scope.add("qkv_conv", {C, W}, {Init::Kind::uniform, -range, range},
                  {{"q_conv1d", qk_width_}, {"k_conv1d", qk_width_}, {"v_conv1d", v_width_}});
  }
  std::vector<RowBlock> small{{"f_a_proj", K}};
  if (gate_width_ > 0)
    small.push_back({config_.use_full_rank_gate ? "g_proj" : "g_a_proj", gate_width_});
  small.push_back({"b_proj", HV});
  fgb_proj_ = scope.matrix("fgb_proj", K + gate_width_ + HV, D_, small);
  f_b_proj_ = scope.matrix("f_b_proj", HV * K, K);
  // The bounded law starts at A = 1, the softplus law at A in [1, 16); both with steps of
  // 1e-3..0.1.
  A_log_ = scope.undecayed("A_log", {HV},
                           config_.gate_lower_bound ? Init{Init::Kind::constant, 0, 0}
                                                    : Init{Init::Kind::log_uniform_log, 1, 16});
  dt_bias_ =
      scope.undecayed("dt_bias", {HV, K}, {Init::Kind::inverse_softplus_log_uniform, 1e-3, 0.1});
  if (gate_width_ > 0 && !config_.use_full_rank_gate)
    g_b_proj_ = scope.matrix("g_b_proj", v_width_, K);
  o_norm_ = scope.norm_weight("o_norm", K);
  o_proj_ = scope.matrix("o_proj", D_, v_width_);
}

KdaLayer::Gates KdaLayer::gates(Tape& tape, const Var& x) const {
  const int64_t K = config_.head_dim, HV = config_.num_value_heads;
  const Var fgb = linear(tape, x, fgb_proj_);
  const std::vector<Var> parts =
      gate_width_ > 0 ? tape.split(fgb, {K, gate_width_, HV}) : tape.split(fgb, {K, HV});
  Gates g{
      .decay_NHK = linear(tape, parts[0], f_b_proj_), .output_NHV = {}, .beta_NH = parts.back()};
  if (gate_width_ > 0)
    g.output_NHV = config_.use_full_rank_gate ? parts[1] : linear(tape, parts[1], g_b_proj_);
  return g;
}

Var KdaLayer::forward(Tape& tape, const Var& x, const Sequences& seq,
                      const MixerCache* cache) const {
  RecurrentState conv_state, state;
  if (cache && config_.short_conv_kernel_size > 0)
    conv_state = {cache->state[kConv].view(), cache->state[kConv].view()};
  if (cache) state = {cache->state[kState].view(), cache->state[kState].view()};

  const Var projected = linear(tape, x, qkv_proj_);
  const Var qkv = config_.short_conv_kernel_size > 0
                      ? short_conv(tape, projected, qkv_conv_, seq.cu_seqlens, conv_state)
                      : silu(tape, projected);
  const std::vector<Var> parts = tape.split(qkv, {qk_width_, qk_width_, v_width_});
  const Gates g = gates(tape, x);
  const Var o =
      kda(tape,
          {.q_NHK = parts[0],
           .k_NHK = parts[1],
           .v_NHV = parts[2],
           .g_NHK = g.decay_NHK,
           .beta_NH = g.beta_NH,
           .A_log = A_log_,
           .dt_bias = dt_bias_,
           .H = config_.num_heads,
           .HV = config_.num_value_heads,
           .params = {.gate = config_.gate_lower_bound ? GateLaw::bounded : GateLaw::softplus,
                      .gate_lower_bound = config_.gate_lower_bound.value_or(-5),
                      .beta_max = config_.allow_neg_eigval ? 2.0 : 1.0}},
          seq.cu_seqlens, state);

  const auto activation =
      config_.output_gate == "swish" ? GateActivation::swish : GateActivation::sigmoid;
  return linear(tape, gated_rmsnorm(tape, o, g.output_NHV, o_norm_, eps_, activation), o_proj_);
}

MixerCache KdaLayer::make_cache(DType dtype, Device device, int64_t slots, int64_t) const {
  const int64_t K = config_.head_dim, W = config_.short_conv_kernel_size;
  MixerCache cache;
  cache.state.push_back(Buffer(dtype, {slots, config_.num_value_heads, K, K}, device));
  if (W > 0) cache.state.push_back(Buffer(dtype, {slots, 2 * qk_width_ + v_width_, W - 1}, device));
  return cache;
}

LayerCost KdaLayer::cost(int64_t) const {
  const double K = double(config_.head_dim), HV = double(config_.num_value_heads), C = 64;
  const double width = double(2 * qk_width_ + v_width_);
  const bool low_rank = gate_width_ > 0 && !config_.use_full_rank_gate;
  const double weights = double(D_) * (width + K + double(gate_width_) + HV + double(v_width_)) +
                         HV * K * K * (low_rank ? 2 : 1) +
                         width * double(config_.short_conv_kernel_size);
  // Chunked form per value head and token: 6 K^2 + 3 C K + C^2 (the report's count, C = 64).
  return {.matmul = 2 * weights, .sequence = HV * (6 * K * K + 3 * C * K + C * C)};
}

}  // namespace sluice
