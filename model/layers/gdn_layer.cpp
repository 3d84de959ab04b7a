// model/layers/gdn_layer.cpp -- projections, convolution, GDN, gated norm.
#include "model/layers/gdn_layer.h"

#include "model/autograd/basic_ops.h"

namespace sluice {

static ParamId add_agb_proj(const ParamScope& scope, const KdaConfig& c, int64_t D,
                            bool delta_rule) {
  const RowBlock gate = GatedOutput::logit_rows(c);
  std::vector<RowBlock> blocks{{"a_proj", c.num_value_heads}};
  if (gate.rows > 0) blocks.push_back(gate);
  if (delta_rule) blocks.push_back({"b_proj", c.num_value_heads});
  int64_t rows = 0;
  for (const RowBlock& b : blocks) rows += b.rows;
  return scope.matrix(delta_rule ? "agb_proj" : "ag_proj", rows, D, blocks);
}

GdnLayer::GdnLayer(const ParamScope& scope, const LayerConfig& config, bool delta_rule)
    : config_(config.kda),
      delta_rule_(delta_rule),
      D_(config.hidden_size),
      qkv_(scope, config_, D_),
      agb_proj_(add_agb_proj(scope, config_, D_, delta_rule)),
      A_log_(scope.undecayed("A_log", {config_.num_value_heads},
                             {Init::Kind::log_uniform_log, 1, 16})),
      dt_bias_(scope.undecayed("dt_bias", {config_.num_value_heads},
                               {Init::Kind::inverse_softplus_log_uniform, 1e-3, 0.1})),
      output_(scope, config) {}

Var GdnLayer::forward(Tape& tape, const Var& x, const Sequences& seq,
                      const MixerCache* cache) const {
  const int64_t HV = config_.num_value_heads, gate = GatedOutput::logit_rows(config_).rows;
  const std::vector<Var> qkv = qkv_.forward(tape, x, seq, cache);
  std::vector<int64_t> widths{HV};
  if (gate > 0) widths.push_back(gate);
  if (delta_rule_) widths.push_back(HV);
  const std::vector<Var> parts = tape.split(linear(tape, x, agb_proj_), widths);
  const Var o = gdn(tape,
                    {.q = qkv[0],
                     .k = qkv[1],
                     .v = qkv[2],
                     .g = parts[0],
                     .beta = delta_rule_ ? parts.back() : Var{},
                     .A_log = A_log_,
                     .dt_bias = dt_bias_,
                     .H = config_.num_heads,
                     .HV = HV,
                     .params = {.delta_rule = delta_rule_,
                                .beta_max = config_.allow_neg_eigval && delta_rule_ ? 2.0 : 1.0}},
                    seq.cu_seqlens, ConvQkv::matrix_state(cache, seq.step), seq.exchange);
  return output_.forward(tape, o, gate > 0 ? parts[1] : Var{});
}

MixerCache GdnLayer::make_cache(DType dtype, Device device, int64_t slots, int64_t) const {
  return qkv_.make_cache(dtype, device, slots);
}

LayerCost GdnLayer::cost(int64_t) const {
  const double K = double(config_.head_dim), HV = double(config_.num_value_heads), C = 64;
  const double small = double(GatedOutput::logit_rows(config_).rows) + HV * (delta_rule_ ? 2 : 1);
  const double weights = qkv_.weights() + double(D_) * small + output_.weights();
  // As KDA's; without the delta rule no product of keys with state or keys, and no solve.
  const double head = delta_rule_ ? 6 * K * K + 3 * C * K + C * C : 4 * K * K + 2 * C * K;
  return {.matmul = 2 * weights, .sequence = HV * head};
}

}  // namespace sluice
