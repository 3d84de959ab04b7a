// model/export/engines/hf_config.cpp -- config.json of three architectures.
//
// Keys that have one legal value are written all the same: engines differ in their defaults.
#include "model/export/engines/hf_config.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace sluice {

using Json = nlohmann::ordered_json;

namespace {

Json id_or_null(int64_t id) {
  return id < 0 ? Json(nullptr) : Json(id);
}

Json common(const LmConfig& m, const char* architecture, const char* type, const TextFacts& text,
            bool bf16) {
  return {{"architectures", {architecture}},
          {"model_type", type},
          {"dtype", bf16 ? "bfloat16" : "float32"},
          {"vocab_size", *m.vocab_size},
          {"hidden_size", m.hidden_size},
          {"num_hidden_layers", m.num_hidden_layers},
          {"intermediate_size", m.intermediate_size},
          {"initializer_range", m.initializer_range},
          {"use_cache", true},
          {"bos_token_id", id_or_null(text.end_of_text)},
          {"eos_token_id", id_or_null(text.end_of_text)},
          {"pad_token_id", id_or_null(text.end_of_text)},
          {"max_position_embeddings", text.context_tokens}};
}

Json mla_keys(const LmConfig& m) {
  const MlaConfig& c = m.mla;
  return {{"hidden_act", "silu"},
          {"rms_norm_eps", m.rms_norm_eps},
          {"tie_word_embeddings", false},  // a copy is written: not all engines tie
          {"num_attention_heads", c.num_attention_heads},
          {"num_key_value_heads", c.num_attention_heads},
          {"q_lora_rank", c.q_lora_rank ? Json(*c.q_lora_rank) : Json(nullptr)},
          {"kv_lora_rank", c.kv_lora_rank},
          {"qk_nope_head_dim", c.qk_nope_head_dim},
          {"qk_rope_head_dim", c.qk_rope_head_dim},
          {"v_head_dim", c.v_head_dim},
          {"rope_theta", c.rope_theta},
          {"rope_scaling", nullptr}};
}

// Layers that are dense throughout say so by their number, beside the sizes of experts that no
// layer has.
int64_t dense_layers(const LmConfig& m) {
  return m.ffn == "moe" ? m.moe.first_k_dense_replace : m.num_hidden_layers;
}

Json kimi_linear(const LmConfig& m, const TextFacts& text) {
  Json linear = Json::array(), full = Json::array();
  const std::vector<std::string> pattern = m.pattern();
  for (size_t i = 0; i < pattern.size(); ++i)
    (pattern[i] == "mla" ? full : linear).push_back(i + 1);
  Json c = mla_keys(m);
  c.update(Json{{"model_max_length", text.context_tokens},
                {"head_dim", std::max<int64_t>(1, m.hidden_size / m.mla.num_attention_heads)},
                {"mla_use_nope", true},
                {"linear_attn_config",
                 {{"kda_layers", linear},
                  {"full_attn_layers", full},
                  {"num_heads", m.kda.num_heads},
                  {"head_dim", m.kda.head_dim},
                  {"short_conv_kernel_size", m.kda.short_conv_kernel_size}}},
                {"moe_intermediate_size", m.moe.moe_intermediate_size},
                {"num_experts", m.moe.num_experts},
                {"num_experts_per_token", m.moe.num_experts_per_token},
                {"num_shared_experts", std::max<int64_t>(1, m.moe.num_shared_experts)},
                {"moe_router_activation_func", m.moe.moe_router_activation_func},
                {"moe_renormalize", m.moe.moe_renormalize},
                {"routed_scaling_factor", m.moe.routed_scaling_factor},
                {"first_k_dense_replace", dense_layers(m)},
                {"moe_layer_freq", 1},
                {"use_grouped_topk", true},
                {"num_expert_group", 1},
                {"topk_group", 1},
                {"num_nextn_predict_layers", 0}});
  return c;
}

Json deepseek_v3(const LmConfig& m) {
  Json c = mla_keys(m);
  c.update(Json{{"rope_interleave", true},
                {"attention_bias", false},
                {"moe_intermediate_size", m.moe.moe_intermediate_size},
                {"n_routed_experts", m.moe.num_experts},
                {"num_experts_per_tok", m.moe.num_experts_per_token},
                {"n_shared_experts", std::max<int64_t>(1, m.moe.num_shared_experts)},
                {"topk_method", "noaux_tc"},
                {"scoring_func", "sigmoid"},
                {"norm_topk_prob", m.moe.moe_renormalize},
                {"routed_scaling_factor", m.moe.routed_scaling_factor},
                {"first_k_dense_replace", dense_layers(m)},
                {"moe_layer_freq", 1},
                {"n_group", 1},
                {"topk_group", 1},
                {"num_nextn_predict_layers", 0},
                {"pretraining_tp", 1}});
  return c;
}

Json fla_kda(const LmConfig& m) {
  const KdaConfig& k = m.kda;
  return {{"attn_mode", "chunk"},
          {"expand_v", 1.0},
          {"use_short_conv", true},
          {"conv_size", k.short_conv_kernel_size},
          {"allow_neg_eigval", k.allow_neg_eigval},
          {"safe_gate", k.gate_lower_bound.has_value()},
          {"lower_bound", k.gate_lower_bound ? Json(*k.gate_lower_bound) : Json(nullptr)},
          {"head_dim", k.head_dim},
          {"num_heads", k.num_heads},
          {"num_v_heads", k.num_value_heads},
          {"hidden_ratio", nullptr},
          {"hidden_act", "swish"},
          {"norm_eps", m.rms_norm_eps},
          {"attn", nullptr},
          {"tie_word_embeddings", m.tie_word_embeddings}};
}

}  // namespace

std::string hf_config(const LmConfig& m, Architecture a, const TextFacts& text, bool bf16) {
  Json config;
  switch (a) {
    case Architecture::kimi_linear:
      config = common(m, "KimiLinearForCausalLM", "kimi_linear", text, bf16);
      config.update(kimi_linear(m, text));
      break;
    case Architecture::deepseek_v3:
      config = common(m, "DeepseekV3ForCausalLM", "deepseek_v3", text, bf16);
      config.update(deepseek_v3(m));
      break;
    case Architecture::fla_kda:
      config = common(m, "KDAForCausalLM", "kda", text, bf16);
      config.update(fla_kda(m));
      break;
  }
  return config.dump(2) + "\n";
}

std::string hf_generation_config(const TextFacts& text) {
  return Json{{"bos_token_id", id_or_null(text.end_of_text)},
              {"eos_token_id", id_or_null(text.end_of_text)},
              {"pad_token_id", id_or_null(text.end_of_text)}}
             .dump(2) +
         "\n";
}

std::string hf_tokenizer_config(const TextFacts& text) {
  Json c{{"tokenizer_class", "PreTrainedTokenizerFast"},
         {"model_max_length", text.context_tokens},
         {"clean_up_tokenization_spaces", false}};
  if (text.end_of_text >= 0)
    c["bos_token"] = c["eos_token"] = c["pad_token"] = text.end_of_text_text;
  return c.dump(2) + "\n";
}

}  // namespace sluice
