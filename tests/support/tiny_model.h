// tests/support/tiny_model.h -- a small model of every layer kind, and batches of random documents.
#pragma once

#include <vector>

#include "model/autograd/plain_store.h"
#include "model/lm/lm.h"
#include "tests/support/gradcheck.h"

namespace sluice::test {

inline LmConfig tiny_config(const std::string& linear = "kda") {
  LmConfig c;
  c.linear = linear;
  c.vocab_size = 29;
  c.hidden_size = 24;
  c.num_hidden_layers = 4;
  c.ratio = "3:1";
  c.intermediate_size = 32;
  c.kda.num_heads = 2;
  c.kda.num_value_heads = 4;
  c.kda.head_dim = 8;
  c.mla.num_attention_heads = 2;
  c.mla.kv_lora_rank = 12;
  c.mla.qk_nope_head_dim = 8;
  c.mla.qk_rope_head_dim = 4;
  c.mla.v_head_dim = 8;
  c.initializer_range = 0.2;
  return c;
}

// The same with experts behind the first layer.
inline LmConfig tiny_moe_config() {
  LmConfig c = tiny_config();
  c.ffn = "moe";
  c.moe = {.num_experts = 6, .num_experts_per_token = 2, .moe_intermediate_size = 16};
  return c;
}

// What the mixers can be besides their defaults, each key in some variant.
struct Variant {
  const char* name;
  LmConfig config;
};
inline std::vector<Variant> mixer_variants() {
  std::vector<Variant> v(7, {"", tiny_config()});
  v[0].name = "q_lora_and_output_gates";
  v[0].config.mla.q_lora_rank = 10;
  v[0].config.mla.use_output_gate = true;
  v[0].config.kda.use_full_rank_gate = true;
  v[0].config.kda.gate_lower_bound = -5.0;
  v[1].name = "no_conv";
  v[1].config.kda.short_conv_kernel_size = 0;
  v[1].config.kda.allow_neg_eigval = true;
  v[1].config.mla.use_output_gate = true;
  v[1].config.mla.use_nope = false;
  v[2].name = "conv_of_2_no_output_gate";
  v[2].config.kda.short_conv_kernel_size = 2;
  v[2].config.kda.output_gate = "none";
  v[2].config.mla.q_lora_rank = 5;
  v[3].name = "conv_of_3_full_rank_swish";
  v[3].config.kda.short_conv_kernel_size = 3;
  v[3].config.kda.output_gate = "swish";
  v[3].config.kda.use_full_rank_gate = true;
  v[4].name = "gdn";
  v[4].config = tiny_config("gdn");
  v[4].config.kda.allow_neg_eigval = true;
  v[5].name = "mamba2";
  v[5].config = tiny_config("mamba2");
  v[5].config.kda.use_full_rank_gate = true;
  v[6].name = "gdn_no_conv_no_output_gate";
  v[6].config = tiny_config("gdn");
  v[6].config.kda.short_conv_kernel_size = 0;
  v[6].config.kda.output_gate = "none";
  return v;
}

// Unequal loads, and experts 1 and 4 (of the tiny model's 6) without a token.
inline void set_unequal_loads(ParamStore& params) {
  for (const Shard& s : params.shards())
    for (int64_t i = 0; params.spec(s.id).rule == UpdateRule::expert_load && i < s.master.dim(0);
         ++i)
      set_element(s.master, i, (s.begin + i) % 3 == 1 ? -3 : 0.05 * double(s.begin + i));
}

// Slow decay: what leaked across a boundary would still be there after a thousand tokens.
inline void set_slow_decay(ParamStore& params) {
  for (const Shard& s : params.shards()) {
    const std::string& name = params.spec(s.id).name;
    const bool A = name.find("A_log") != std::string::npos;
    if (A) fill(s.master, 0);
    if (name.find("dt_bias") != std::string::npos) fill(s.master, -8);
  }
}

struct Documents {
  explicit Documents(const std::vector<int64_t>& lengths, uint64_t seed = 1)
      : cu(DType::i32, {int64_t(lengths.size()) + 1}), scale(DType::f64, {1}) {
    int64_t N = 0;
    for (size_t d = 0; d < lengths.size(); ++d)
      cu.view().as<int32_t>()[d + 1] = int32_t(N += lengths[d]);
    tokens = Buffer(DType::i32, {N});
    targets = Buffer(DType::i32, {N});
    for (int64_t n = 0; n < N; ++n) {
      tokens.view().as<int32_t>()[n] = int32_t(random_u64(seed, uint64_t(n)) % 29);
      targets.view().as<int32_t>()[n] = int32_t(random_u64(seed + 1, uint64_t(n)) % 29);
    }
    *scale.view().as<double>() = 0.01;
  }
  LmBatch batch() const {
    return {.tokens = tokens.view(),
            .targets = targets.view(),
            .loss_scale = scale.view(),
            .sequences = {cu.view(), {}}};
  }
  // Document d alone.
  Documents only(int64_t d) const {
    const int64_t begin = cu.view().as<int32_t>()[d], n = cu.view().as<int32_t>()[d + 1] - begin;
    Documents one({n});
    for (int64_t i = 0; i < n; ++i) {
      one.tokens.view().as<int32_t>()[i] = tokens.view().as<int32_t>()[begin + i];
      one.targets.view().as<int32_t>()[i] = targets.view().as<int32_t>()[begin + i];
    }
    return one;
  }

  Buffer cu, tokens, targets, scale;
};

}  // namespace sluice::test
