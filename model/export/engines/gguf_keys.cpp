// model/export/engines/gguf_keys.cpp -- what llama.cpp reads of a model beside its tensors.
#include <algorithm>

#include "model/export/engines/gguf_model.h"

namespace sluice {
namespace {

// LLAMA_FTYPE of files whose matrices have this type.
uint64_t file_type(GgufType type) {
  switch (type) {
    case GgufType::f32: return 0;
    case GgufType::f16: return 1;
    case GgufType::q8_0: return 7;
    case GgufType::bf16: return 32;
  }
  return 0;
}

class KeyList {
 public:
  explicit KeyList(std::string prefix) : prefix_(std::move(prefix)) {}
  void add(const std::string& key, GgufValue v) { keys_.emplace_back(key, std::move(v)); }
  void u32(const std::string& key, int64_t x) { add(prefix_ + key, GgufValue::u32(uint64_t(x))); }
  void f32(const std::string& key, double x) { add(prefix_ + key, GgufValue::f32(x)); }

  GgufKeys keys_;
  std::string prefix_;
};

// Attention is served as one head of keys and values, the latent with the rope part.
void add_attention(const LmConfig& m, bool hybrid, KeyList& k) {
  const MlaConfig& c = m.mla;
  k.u32("attention.head_count", c.num_attention_heads);
  if (hybrid) {
    std::vector<int64_t> kv;  // 0 says that the layer is recurrent
    for (const std::string& mixer : m.pattern()) kv.push_back(mixer == "mla" ? 1 : 0);
    k.add(k.prefix_ + "attention.head_count_kv", GgufValue::i32_list(kv));
  } else {
    k.u32("attention.head_count_kv", 1);
  }
  k.f32("attention.layer_norm_rms_epsilon", m.rms_norm_eps);
  // deepseek2 wants the key where there is no such matrix too: 0 is what it takes for none.
  if (c.q_lora_rank || !hybrid) k.u32("attention.q_lora_rank", c.q_lora_rank.value_or(0));
  k.u32("attention.kv_lora_rank", c.kv_lora_rank);
  k.u32("attention.key_length", c.kv_lora_rank + c.qk_rope_head_dim);
  k.u32("attention.value_length", c.kv_lora_rank);
  k.u32("attention.key_length_mla", c.qk_nope_head_dim + c.qk_rope_head_dim);
  k.u32("attention.value_length_mla", c.v_head_dim);
  k.u32("rope.dimension_count", c.qk_rope_head_dim);
  k.f32("rope.freq_base", c.rope_theta);
}

// Required of dense models too.
void add_experts(const LmConfig& m, KeyList& k) {
  const MoeConfig& c = m.moe;
  const bool moe = m.ffn == "moe";
  constexpr int kSoftmax = 1, kSigmoid = 2;
  k.u32("leading_dense_block_count", moe ? c.first_k_dense_replace : m.num_hidden_layers);
  k.u32("expert_count", moe ? c.num_experts : 0);
  k.u32("expert_used_count", moe ? c.num_experts_per_token : 0);
  k.u32("expert_shared_count", moe ? c.num_shared_experts : 0);
  k.u32("expert_feed_forward_length", moe ? c.moe_intermediate_size : m.intermediate_size);
  k.u32("expert_gating_func", c.moe_router_activation_func == "softmax" ? kSoftmax : kSigmoid);
  k.f32("expert_weights_scale", c.routed_scaling_factor);
  k.add(k.prefix_ + "expert_weights_norm", GgufValue::boolean(c.moe_renormalize));
}

}  // namespace

GgufKeys gguf_model_keys(const LmConfig& m, Architecture a, const TextFacts& text, GgufType type,
                         const std::string& name) {
  const bool hybrid = a == Architecture::kimi_linear;
  SLUICE_CHECK(hybrid || a == Architecture::deepseek_v3, sluice::name(a),
               " has no architecture in llama.cpp");
  const std::string architecture = hybrid ? "kimi-linear" : "deepseek2";
  KeyList k(architecture + ".");
  k.add("general.architecture", GgufValue::text(architecture));
  k.add("general.type", GgufValue::text("model"));
  k.add("general.name", GgufValue::text(name));
  k.add("general.file_type", GgufValue::u32(file_type(type)));
  k.add("general.quantization_version", GgufValue::u32(2));
  k.u32("block_count", m.num_hidden_layers);
  k.u32("context_length", text.context_tokens);
  k.u32("embedding_length", m.hidden_size);
  k.u32("feed_forward_length", m.intermediate_size);
  k.u32("vocab_size", *m.vocab_size);
  add_attention(m, hybrid, k);
  if (hybrid) {
    k.u32("ssm.conv_kernel", m.kda.short_conv_kernel_size);
    k.u32("kda.head_dim", m.kda.head_dim);
  }
  add_experts(m, k);
  return std::move(k.keys_);
}

}  // namespace sluice
