// model/layers/kda_layer.cpp -- projections, convolution, KDA, gated norm.
#include "model/layers/kda_layer.h"

#include "model/autograd/basic_ops.h"

namespace sluice {

static ParamId add_fgb_proj(const ParamScope& scope, const KdaConfig& c, int64_t D) {
  const RowBlock gate = GatedOutput::logit_rows(c);
  std::vector<RowBlock> rows{{"f_a_proj", c.head_dim}};
  if (gate.rows > 0) rows.push_back(gate);
  rows.push_back({"b_proj", c.num_value_heads});
  return scope.matrix("fgb_proj", c.head_dim + gate.rows + c.num_value_heads, D, rows);
}

// The bounded law starts at A = 1, the softplus law at A in [1, 16); both with steps of 1e-3..0.1.
static ParamId add_A_log(const ParamScope& scope, const KdaConfig& c) {
  return scope.undecayed("A_log", {c.num_value_heads},
                         c.gate_lower_bound ? Init{Init::Kind::constant, 0, 0}
                                            : Init{Init::Kind::log_uniform_log, 1, 16});
}

KdaLayer::KdaLayer(const ParamScope& scope, const LayerConfig& config)
    : config_(config.kda),
      D_(config.hidden_size),
      qkv_(scope, config_, D_),
      fgb_proj_(add_fgb_proj(scope, config_, D_)),
      f_b_proj_(
          scope.matrix("f_b_proj", config_.num_value_heads * config_.head_dim, config_.head_dim)),
      A_log_(add_A_log(scope, config_)),
      dt_bias_(scope.undecayed("dt_bias", {config_.num_value_heads, config_.head_dim},
                               {Init::Kind::inverse_softplus_log_uniform, 1e-3, 0.1})),
      output_(scope, config) {}

Var KdaLayer::forward(Tape& tape, const Var& x, const Sequences& seq,
                      const MixerCache* cache) const {
  const int64_t K = config_.head_dim, HV = config_.num_value_heads;
  const int64_t gate = GatedOutput::logit_rows(config_).rows;
  const std::vector<Var> qkv = qkv_.forward(tape, x, seq, cache);
  const Var fgb = linear(tape, x, fgb_proj_);
  const std::vector<Var> parts =
      gate > 0 ? tape.split(fgb, {K, gate, HV}) : tape.split(fgb, {K, HV});
  const Var o =
      kda(tape,
          {.q = qkv[0],
           .k = qkv[1],
           .v = qkv[2],
           .g = linear(tape, parts[0], f_b_proj_),
           .beta = parts.back(),
           .A_log = A_log_,
           .dt_bias = dt_bias_,
           .H = config_.num_heads,
           .HV = HV,
           .params = {.gate = config_.gate_lower_bound ? GateLaw::bounded : GateLaw::softplus,
                      .gate_lower_bound = config_.gate_lower_bound.value_or(-5),
                      .beta_max = config_.allow_neg_eigval ? 2.0 : 1.0}},
          seq.cu_seqlens, ConvQkv::matrix_state(cache, seq.step), seq.exchange);
  return output_.forward(tape, o, gate > 0 ? parts[1] : Var{});
}

MixerCache KdaLayer::make_cache(DType dtype, Device device, int64_t slots, int64_t) const {
  return qkv_.make_cache(dtype, device, slots);
}

LayerCost KdaLayer::cost(int64_t) const {
  const double K = double(config_.head_dim), HV = double(config_.num_value_heads), C = 64;
  const double gate = double(GatedOutput::logit_rows(config_).rows);
  const double weights =
      qkv_.weights() + double(D_) * (K + gate + HV) + HV * K * K + output_.weights();
  // Chunked form per value head and token: 6 K^2 + 3 C K + C^2 (the report's count, C = 64).
  return {.matmul = 2 * weights, .sequence = HV * (6 * K * K + 3 * C * K + C * C)};
}

}  // namespace sluice
