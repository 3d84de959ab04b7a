// model/export/engines/hf_read_config.cpp -- config.json to the `model:` section.
#include <nlohmann/json.hpp>

#include "model/export/engines/hf_reader.h"

namespace sluice {

namespace {

using Json = nlohmann::json;

// Takes keys with a type and a place to complain.
class Keys {
 public:
  Keys(std::string path, const Json& object) : path_(std::move(path)), object_(object) {}

  bool has(const char* key) const { return object_.contains(key) && !object_.at(key).is_null(); }
  template <class T>
  T get(const char* key) const {
    SLUICE_CHECK(has(key), path_, ": ", key, ": missing");
    try {
      return object_.at(key).get<T>();
    } catch (const Json::exception&) {
      SLUICE_CHECK(false, path_, ": ", key, ": ", object_.at(key).dump(), " has the wrong type");
    }
    return {};
  }
  template <class T>
  T get(const char* key, T otherwise) const {
    return has(key) ? get<T>(key) : otherwise;
  }
  // A key that our layers have one value for.
  template <class T>
  void only(const char* key, const T& value) const {
    if (!has(key)) return;
    const T is = get<T>(key);
    SLUICE_CHECK(is == value, path_, ": ", key, ": expected ", Json(value).dump(), ", got ",
                 Json(is).dump());
  }
  Keys section(const char* key) const { return {path_ + ": " + key, object_.at(key)}; }

 private:
  std::string path_;
  const Json& object_;
};

void read_common(const Keys& k, LmConfig& m) {
  m.vocab_size = k.get<int64_t>("vocab_size");
  m.hidden_size = k.get<int64_t>("hidden_size");
  m.num_hidden_layers = k.get<int64_t>("num_hidden_layers");
  m.initializer_range = k.get("initializer_range", 0.02);
}

void read_mla(const Keys& k, LmConfig& m) {
  k.only<std::string>("hidden_act", "silu");
  k.only("attention_bias", false);
  k.only("num_nextn_predict_layers", int64_t(0));
  m.intermediate_size = k.get<int64_t>("intermediate_size");
  m.rms_norm_eps = k.get<double>("rms_norm_eps");
  m.tie_word_embeddings = k.get("tie_word_embeddings", false);
  MlaConfig& c = m.mla;
  c.num_attention_heads = k.get<int64_t>("num_attention_heads");
  k.only("num_key_value_heads", c.num_attention_heads);
  if (k.has("q_lora_rank")) c.q_lora_rank = k.get<int64_t>("q_lora_rank");
  c.kv_lora_rank = k.get<int64_t>("kv_lora_rank");
  c.qk_nope_head_dim = k.get<int64_t>("qk_nope_head_dim");
  c.qk_rope_head_dim = k.get<int64_t>("qk_rope_head_dim");
  c.v_head_dim = k.get<int64_t>("v_head_dim");
}

// Names of the same keys: Kimi's, DeepSeek's.
struct MoeNames {
  const char *experts, *per_token, *shared, *renormalize, *groups;
};

void read_moe(const Keys& k, const MoeNames& n, LmConfig& m) {
  MoeConfig& c = m.moe;
  c.first_k_dense_replace = k.get<int64_t>("first_k_dense_replace");
  m.ffn = c.first_k_dense_replace < m.num_hidden_layers && k.has(n.experts) ? "moe" : "dense";
  if (m.ffn == "dense") return void(c = MoeConfig{});
  k.only("moe_layer_freq", int64_t(1));
  k.only(n.groups, int64_t(1));
  k.only("topk_group", int64_t(1));
  c.num_experts = k.get<int64_t>(n.experts);
  c.num_experts_per_token = k.get<int64_t>(n.per_token);
  c.moe_intermediate_size = k.get<int64_t>("moe_intermediate_size");
  c.num_shared_experts = k.get<int64_t>(n.shared, 0);
  c.moe_renormalize = k.get(n.renormalize, true);
  c.routed_scaling_factor = k.get<double>("routed_scaling_factor");
}

// Numbers there count from 1.
void read_pattern(const Keys& linear, LmConfig& m) {
  m.layers.assign(size_t(m.num_hidden_layers), "");
  auto set = [&](const char* key, const char* mixer) {
    for (const int64_t n : linear.get<std::vector<int64_t>>(key)) {
      SLUICE_CHECK(n >= 1 && n <= m.num_hidden_layers && m.layers[size_t(n - 1)].empty(),
                   "linear_attn_config: ", key, ": layer ", n, " of ", m.num_hidden_layers,
                   " is out of range or named twice");
      m.layers[size_t(n - 1)] = mixer;
    }
  };
  set("kda_layers", "kda");
  set("full_attn_layers", "mla");
  for (size_t i = 0; i < m.layers.size(); ++i)
    SLUICE_CHECK(!m.layers[i].empty(), "linear_attn_config: layer ", i + 1, " is in neither list");
}

void read_kimi_linear(const Keys& k, LmConfig& m) {
  read_mla(k, m);
  k.only("mla_use_nope", true);
  m.mla.use_nope = true;
  const Keys linear = k.section("linear_attn_config");
  read_pattern(linear, m);
  m.kda.num_heads = m.kda.num_value_heads = linear.get<int64_t>("num_heads");
  m.kda.head_dim = linear.get<int64_t>("head_dim");
  m.kda.short_conv_kernel_size = linear.get<int64_t>("short_conv_kernel_size");
  read_moe(k,
           {"num_experts", "num_experts_per_token", "num_shared_experts", "moe_renormalize",
            "num_expert_group"},
           m);
  if (m.ffn == "moe")
    m.moe.moe_router_activation_func = k.get<std::string>("moe_router_activation_func", "sigmoid");
}

void read_deepseek_v3(const Keys& k, LmConfig& m) {
  read_mla(k, m);
  k.only("rope_interleave", true);
  SLUICE_CHECK(!k.has("rope_scaling"), "rope_scaling: expected null, got a section");
  m.mla.use_nope = false;
  m.mla.rope_theta = k.get("rope_theta", 10000.0);
  m.ratio = "0:1";
  read_moe(
      k,
      {"n_routed_experts", "num_experts_per_tok", "n_shared_experts", "norm_topk_prob", "n_group"},
      m);
  if (m.ffn == "moe") k.only<std::string>("scoring_func", "sigmoid");
}

void read_fla_kda(const Keys& k, LmConfig& m) {
  k.only("expand_v", 1.0);
  k.only("use_short_conv", true);
  k.only<std::string>("hidden_act", "swish");
  SLUICE_CHECK(!k.has("attn"), "attn: expected null, got a section");
  m.ratio = "1:0";
  m.rms_norm_eps = k.get("norm_eps", 1e-6);
  m.tie_word_embeddings = k.get("tie_word_embeddings", false);
  m.intermediate_size = k.get<int64_t>("intermediate_size");
  m.kda.num_heads = k.get<int64_t>("num_heads");
  m.kda.num_value_heads = k.get("num_v_heads", m.kda.num_heads);
  m.kda.head_dim = k.get<int64_t>("head_dim");
  m.kda.short_conv_kernel_size = k.get("conv_size", int64_t(4));
  m.kda.allow_neg_eigval = k.get("allow_neg_eigval", false);
  if (k.has("lower_bound")) m.kda.gate_lower_bound = k.get<double>("lower_bound");
}

}  // namespace

HfModel read_hf_config(const std::string& folder) {
  const std::string path = folder + "/config.json";
  Json json;
  try {
    json = Json::parse(read_text(path));
  } catch (const Json::exception& e) {
    SLUICE_CHECK(false, path, ": ", e.what());
  }
  const Keys k(path, json);
  HfModel r;
  read_common(k, r.model);
  const std::string type = k.get<std::string>("model_type");
  if (type == "kimi_linear") {
    read_kimi_linear(k, r.model);
  } else if (type == "deepseek_v3") {
    r.naming = Naming::deepseek;
    read_deepseek_v3(k, r.model);
  } else {
    SLUICE_CHECK(type == "kda", path,
                 ": model_type: expected kimi_linear, deepseek_v3 or kda, got \"", type, "\"");
    r.naming = Naming::fla;
    read_fla_kda(k, r.model);
  }
  r.context_tokens = k.get("max_position_embeddings", k.get("model_max_length", int64_t(0)));
  return r;
}

}  // namespace sluice
