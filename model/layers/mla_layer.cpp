// model/layers/mla_layer.cpp -- projections around the attention core, and the latent cache.
#include "model/layers/mla_layer.h"

#include <cstring>
#include <numeric>

#include "kernels/tensor/buffer.h"
#include "model/autograd/basic_ops.h"
#include "model/autograd/mixer_ops.h"

namespace sluice {

namespace {

struct LatentCache : MixerCache {
  Buffer rows;                   // [S * max_tokens, r + rope]
  std::vector<int64_t> lengths;  // [S] tokens held
  int64_t max_tokens = 0;
  int64_t bytes() const override { return rows.view().bytes(); }
};

// The keys of all sequences, packed: what attention reads when a cache is there.
struct PackedKeys {
  Var rows;           // [Nk, r + rope]
  Tensor cu_seqlens;  // [S + 1] i32
  Buffer offsets;     // its memory
};

// Adds this call's rows [N, r] and [N, rope] to the cache, and packs what it holds now.
PackedKeys append(Tape& tape, LatentCache& cache, const Sequences& seq, const Tensor& c,
                  const Tensor& k_r) {
  SLUICE_CHECK(tape.ctx().device == Device::cpu, "the latent cache has no CUDA path yet");
  if (tape.ctx().mode == Mode::plan) {  // the bound: every sequence full
    const int64_t bound = int64_t(cache.lengths.size()) * cache.max_tokens;
    return {tape.make(c.dtype, {bound, c.dim(1) + k_r.dim(1)}), seq.cu_seqlens, {}};
  }
  const int64_t S = int64_t(cache.lengths.size()), r = c.dim(1), width = r + k_r.dim(1);
  SLUICE_CHECK(int64_t(seq.lengths.size()) == S, seq.lengths.size(), " sequences, cache of ", S);
  const int64_t element = size_of(c.dtype);
  auto at = [&](const Tensor& t, int64_t row) {
    return static_cast<char*>(t.data) + row * t.stride[0] * element;
  };
  int64_t row = 0, total = 0;
  for (int64_t s = 0; s < S; ++s) {
    const int64_t n = seq.lengths[size_t(s)];
    SLUICE_CHECK(cache.lengths[size_t(s)] + n <= cache.max_tokens, "sequence ", s, " would have ",
                 cache.lengths[size_t(s)] + n, " tokens, the cache holds ", cache.max_tokens);
    for (int64_t i = 0; i < n; ++i, ++row) {
      char* to = at(cache.rows.view(), s * cache.max_tokens + cache.lengths[size_t(s)] + i);
      std::memcpy(to, at(c, row), size_t(r * element));
      std::memcpy(to + r * element, at(k_r, row), size_t((width - r) * element));
    }
    total += cache.lengths[size_t(s)] += n;
  }

  PackedKeys keys{tape.make(c.dtype, {total, width}), {}, Buffer(DType::i32, {S + 1})};
  keys.cu_seqlens = keys.offsets.view();
  int64_t begin = 0;
  for (int64_t s = 0; s < S; ++s) {
    const int64_t n = cache.lengths[size_t(s)];
    copy(cache.rows.view().rows(s * cache.max_tokens, n), keys.rows.value.rows(begin, n));
    begin += n;
    keys.cu_seqlens.as<int32_t>()[s + 1] = int32_t(begin);
  }
  return keys;
}

}  // namespace

MlaLayer::MlaLayer(const ParamScope& scope, const LayerConfig& config)
    : config_(config.mla), eps_(config.rms_norm_eps), D_(config.hidden_size) {
  const int64_t H = config_.num_attention_heads, r = config_.kv_lora_rank;
  const int64_t nope = config_.qk_nope_head_dim, rope = config_.qk_rope_head_dim;
  if (config_.q_lora_rank) {
    const int64_t rank = *config_.q_lora_rank;
    q_a_proj_ = scope.matrix("q_a_proj", rank, D_);
    q_a_norm_ = scope.norm_weight("q_a_layernorm", rank);
    q_b_proj_ = scope.matrix("q_b_proj", H * (nope + rope), rank);
  } else {
    q_proj_ = scope.matrix("q_proj", H * (nope + rope), D_);
  }
  kv_a_proj_ = scope.matrix("kv_a_proj_with_mqa", r + rope, D_);
  kv_a_norm_ = scope.norm_weight("kv_a_layernorm", r);
  kv_b_proj_ = scope.matrix("kv_b_proj", H * (nope + config_.v_head_dim), r);
  if (config_.use_output_gate) g_proj_ = scope.matrix("g_proj", H * config_.v_head_dim, D_);
  o_proj_ = scope.matrix("o_proj", D_, H * config_.v_head_dim);
}

Var MlaLayer::queries(Tape& tape, const Var& x) const {
  if (!config_.q_lora_rank) return linear(tape, x, q_proj_);
  return linear(tape, rmsnorm(tape, linear(tape, x, q_a_proj_), q_a_norm_, eps_), q_b_proj_);
}

Var MlaLayer::forward(Tape& tape, const Var& x, const Sequences& seq, MixerCache* cache) const {
  const int64_t r = config_.kv_lora_rank, rope = config_.qk_rope_head_dim;
  const Var q = queries(tape, x);
  const std::vector<Var> kv_a = tape.split(linear(tape, x, kv_a_proj_), {r, rope});
  Var c = rmsnorm(tape, kv_a[0], kv_a_norm_, eps_), k_rope = kv_a[1];

  PackedKeys keys;
  Tensor cu_seqlens_k = seq.cu_seqlens;
  if (cache) {
    keys = append(tape, static_cast<LatentCache&>(*cache), seq, c.value, k_rope.value);
    const std::vector<Var> parts = tape.split(keys.rows, {r, rope});
    c = parts[0];
    k_rope = parts[1];
    cu_seqlens_k = keys.cu_seqlens;
  }
  const Var kv = linear(tape, c, kv_b_proj_);
  const Var o = mla_attention(tape,
                              {.q = q,
                               .kv = kv,
                               .k_rope = k_rope,
                               .H = config_.num_attention_heads,
                               .nope = config_.qk_nope_head_dim,
                               .rope = rope,
                               .V = config_.v_head_dim,
                               .rope_theta = config_.use_nope ? 0 : config_.rope_theta},
                              seq.cu_seqlens, cu_seqlens_k);
  if (!config_.use_output_gate) return linear(tape, o, o_proj_);
  return linear(tape, sigmoid_gate(tape, o, linear(tape, x, g_proj_)), o_proj_);
}

std::unique_ptr<MixerCache> MlaLayer::make_cache(DType dtype, Device device, int64_t sequences,
                                                 int64_t max_tokens) const {
  auto cache = std::make_unique<LatentCache>();
  cache->rows = Buffer(
      dtype, {sequences * max_tokens, config_.kv_lora_rank + config_.qk_rope_head_dim}, device);
  cache->lengths.assign(size_t(sequences), 0);
  cache->max_tokens = max_tokens;
  return cache;
}

LayerCost MlaLayer::cost(int64_t context_tokens) const {
  const double H = double(config_.num_attention_heads), r = double(config_.kv_lora_rank);
  const double nope = double(config_.qk_nope_head_dim), rope = double(config_.qk_rope_head_dim);
  const double V = double(config_.v_head_dim), D = double(D_);
  const double q_width = H * (nope + rope), rank = double(config_.q_lora_rank.value_or(0));
  const double q = config_.q_lora_rank ? rank * (D + q_width) : D * q_width;
  const double weights =
      q + D * (r + rope) + r * H * (nope + V) + D * H * V * (config_.use_output_gate ? 2 : 1);
  // Scores and sums against half the context on average: causal.
  return {.matmul = 2 * weights,
          .sequence = 2 * H * (nope + rope + V) * double(context_tokens) / 2};
}

}  // namespace sluice
