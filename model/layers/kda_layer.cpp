// model/layers/kda_layer.cpp -- projections, convolution, KDA, gated norm.
#include "model/layers/kda_layer.h"

#include <cmath>

#include "kernels/tensor/buffer.h"
#include "model/autograd/basic_ops.h"
#include "model/autograd/mixer_ops.h"

namespace sluice {

namespace {

struct KdaCache : MixerCache {
  Buffer conv;   // [S, C, W-1], the inputs before the next token
  Buffer state;  // [S, HV, K, V]
  int64_t bytes() const override { return conv.view().bytes() + state.view().bytes(); }
};

}  // namespace

KdaLayer::KdaLayer(const ParamScope& scope, const LayerConfig& config)
    : config_(config.kda),
      eps_(config.rms_norm_eps),
      D_(config.hidden_size),
      qk_width_(config.kda.num_heads * config.kda.head_dim),
      v_width_(config.kda.num_value_heads * config.kda.head_dim),
      gated_(config.kda.output_gate != "none") {
  const int64_t K = config_.head_dim, HV = config_.num_value_heads, C = 2 * qk_width_ + v_width_;
  const int64_t W = config_.short_conv_kernel_size;
  const double conv_range = 1 / std::sqrt(double(W));
  qkv_proj_ = scope.matrix("qkv_proj", C, D_,
                           {{"q_proj", qk_width_}, {"k_proj", qk_width_}, {"v_proj", v_width_}});
  qkv_conv_ = scope.add("qkv_conv", {C, W}, {Init::Kind::uniform, -conv_range, conv_range},
                        {{"q_conv1d", qk_width_}, {"k_conv1d", qk_width_}, {"v_conv1d", v_width_}});
  std::vector<RowBlock> small{{"f_a_proj", K}};
  if (gated_) small.push_back({"g_a_proj", K});
  small.push_back({"b_proj", HV});
  fgb_proj_ = scope.matrix("fgb_proj", gated_ ? 2 * K + HV : K + HV, D_, small);
  f_b_proj_ = scope.matrix("f_b_proj", HV * K, K);
  // The bounded law starts at A = 1, the softplus law at A in [1, 16); both with steps of
  // 1e-3..0.1.
  A_log_ = scope.undecayed("A_log", {HV},
                           config_.gate_lower_bound ? Init{Init::Kind::constant, 0, 0}
                                                    : Init{Init::Kind::log_uniform_log, 1, 16});
  dt_bias_ =
      scope.undecayed("dt_bias", {HV, K}, {Init::Kind::inverse_softplus_log_uniform, 1e-3, 0.1});
  if (gated_) g_b_proj_ = scope.matrix("g_b_proj", v_width_, K);
  o_norm_ = scope.norm_weight("o_norm", K);
  o_proj_ = scope.matrix("o_proj", D_, v_width_);
}

Var KdaLayer::forward(Tape& tape, const Var& x, const Sequences& seq, MixerCache* cache) const {
  auto* kept = static_cast<KdaCache*>(cache);
  const int64_t K = config_.head_dim, HV = config_.num_value_heads;
  RecurrentState conv_state, state;
  if (kept) conv_state = {kept->conv.view(), kept->conv.view()};
  if (kept) state = {kept->state.view(), kept->state.view()};

  const Var qkv =
      short_conv(tape, linear(tape, x, qkv_proj_), qkv_conv_, seq.cu_seqlens, conv_state);
  const std::vector<Var> qkv_parts = tape.split(qkv, {qk_width_, qk_width_, v_width_});
  const Var fgb = linear(tape, x, fgb_proj_);
  const std::vector<Var> fgb_parts =
      gated_ ? tape.split(fgb, {K, K, HV}) : tape.split(fgb, {K, HV});

  const Var g = linear(tape, fgb_parts[0], f_b_proj_);
  const Var o =
      kda(tape,
          {.q_NHK = qkv_parts[0],
           .k_NHK = qkv_parts[1],
           .v_NHV = qkv_parts[2],
           .g_NHK = g,
           .beta_NH = fgb_parts.back(),
           .A_log = A_log_,
           .dt_bias = dt_bias_,
           .H = config_.num_heads,
           .HV = HV,
           .params = {.gate = config_.gate_lower_bound ? GateLaw::bounded : GateLaw::softplus,
                      .gate_lower_bound = config_.gate_lower_bound.value_or(-5),
                      .beta_max = config_.allow_neg_eigval ? 2.0 : 1.0}},
          seq.cu_seqlens, state);

  const Var u = gated_ ? linear(tape, fgb_parts[1], g_b_proj_) : Var{};
  const auto activation =
      config_.output_gate == "swish" ? GateActivation::swish : GateActivation::sigmoid;
  return linear(tape, gated_rmsnorm(tape, o, u, o_norm_, eps_, activation), o_proj_);
}

std::unique_ptr<MixerCache> KdaLayer::make_cache(DType dtype, Device device, int64_t sequences,
                                                 int64_t) const {
  auto cache = std::make_unique<KdaCache>();
  const int64_t K = config_.head_dim;
  cache->conv = Buffer(
      dtype, {sequences, 2 * qk_width_ + v_width_, config_.short_conv_kernel_size - 1}, device);
  cache->state = Buffer(dtype, {sequences, config_.num_value_heads, K, K}, device);
  return cache;
}

LayerCost KdaLayer::cost(int64_t) const {
  const double K = double(config_.head_dim), HV = double(config_.num_value_heads), C = 64;
  const double width = double(2 * qk_width_ + v_width_);
  const double weights = double(D_) * (width + (gated_ ? 2 * K : K) + HV + double(v_width_)) +
                         HV * K * K * (gated_ ? 2 : 1) +
                         width * double(config_.short_conv_kernel_size);
  // Chunked form per value head and token: 6 K^2 + 3 C K + C^2 (the report's count, C = 64).
  return {.matmul = 2 * weights, .sequence = HV * (6 * K * K + 3 * C * K + C * C)};
}

}  // namespace sluice
