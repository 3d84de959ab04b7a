// model/layers/linear_attention.cpp -- before and after the recurrence.
#include "model/layers/linear_attention.h"

#include <cmath>

#include "model/autograd/basic_ops.h"
#include "model/autograd/sequence_ops.h"

namespace sluice {

// Of MixerCache::state.
enum : size_t {
  kState,  // [slots, HV, K, V]
  kConv,   // [slots, C, W-1], the inputs before the next token; none without a convolution
};

ConvQkv::ConvQkv(const ParamScope& scope, const KdaConfig& config, int64_t D)
    : config_(config),
      D_(D),
      qk_width_(config.num_heads * config.head_dim),
      v_width_(config.num_value_heads * config.head_dim) {
  const int64_t C = 2 * qk_width_ + v_width_, W = config_.short_conv_kernel_size;
  proj_ = scope.matrix("qkv_proj", C, D_,
                       {{"q_proj", qk_width_}, {"k_proj", qk_width_}, {"v_proj", v_width_}});
  if (W == 0) return;
  const double range = 1 / std::sqrt(double(W));
  conv_ = scope.add("qkv_conv", {C, W}, {Init::Kind::uniform, -range, range},
                    {{"q_conv1d", qk_width_}, {"k_conv1d", qk_width_}, {"v_conv1d", v_width_}});
}

std::vector<Var> ConvQkv::forward(Tape& tape, const Var& x, const Sequences& seq,
                                  const MixerCache* cache) const {
  const bool conv = config_.short_conv_kernel_size > 0;
  RecurrentState state;
  if (cache && conv) state = {cache->state[kConv].view(), cache->state[kConv].view()};
  const Var projected = linear(tape, x, proj_);
  const Var qkv = !conv          ? silu(tape, projected)
                  : seq.exchange ? convolve(tape, projected, *seq.exchange)
                                 : short_conv(tape, projected, conv_, seq.cu_seqlens, state);
  return tape.split(qkv, {qk_width_, qk_width_, v_width_});
}

// The rows before this rank's first come from the rank before.
Var ConvQkv::convolve(Tape& tape, const Var& x, const SequenceExchange& exchange) const {
  SLUICE_CHECK(exchange.halo() == config_.short_conv_kernel_size - 1, "a halo of ", exchange.halo(),
               " rows, ", config_.short_conv_kernel_size, " taps");
  const Var y = short_conv(tape, with_rows_before(tape, x, exchange), conv_, exchange.with_halo());
  return without_rows_before(tape, y, exchange);
}

double ConvQkv::weights() const {
  return double(2 * qk_width_ + v_width_) * double(D_ + config_.short_conv_kernel_size);
}

MixerCache ConvQkv::make_cache(DType dtype, Device device, int64_t slots) const {
  const int64_t K = config_.head_dim, W = config_.short_conv_kernel_size;
  MixerCache cache;
  cache.state.push_back(Buffer(sum_type(dtype), {slots, config_.num_value_heads, K, K}, device));
  if (W > 0) cache.state.push_back(Buffer(dtype, {slots, 2 * qk_width_ + v_width_, W - 1}, device));
  return cache;
}

RecurrentState ConvQkv::matrix_state(const MixerCache* cache, CacheStep step) {
  if (!cache) return {};
  return {cache->state[kState].view(), cache->state[kState].view(), step == CacheStep::decode};
}

RowBlock GatedOutput::logit_rows(const KdaConfig& c) {
  if (c.output_gate == "none") return {"", 0};
  if (c.use_full_rank_gate) return {"g_proj", c.num_value_heads * c.head_dim};
  return {"g_a_proj", c.head_dim};
}

GatedOutput::GatedOutput(const ParamScope& scope, const LayerConfig& config)
    : config_(config.kda),
      eps_(config.rms_norm_eps),
      D_(config.hidden_size),
      v_width_(config.kda.num_value_heads * config.kda.head_dim) {
  if (low_rank()) g_b_proj_ = scope.matrix("g_b_proj", v_width_, config_.head_dim);
  norm_ = scope.norm_weight("o_norm", config_.head_dim);
  proj_ = scope.matrix("o_proj", D_, v_width_);
}

Var GatedOutput::forward(Tape& tape, const Var& o, const Var& logits) const {
  const Var gate = low_rank() ? linear(tape, logits, g_b_proj_) : logits;
  const auto activation =
      config_.output_gate == "swish" ? GateActivation::swish : GateActivation::sigmoid;
  return linear(tape, gated_rmsnorm(tape, o, gate, norm_, eps_, activation), proj_);
}

double GatedOutput::weights() const {
  return double(v_width_) * double(D_ + (low_rank() ? config_.head_dim : 0));
}

}  // namespace sluice
