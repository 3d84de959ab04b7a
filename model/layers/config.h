// model/layers/config.h -- the keys of every layer kind; model/lm/config.h holds them together.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace sluice {

struct KdaConfig {
  int64_t num_heads = 4;
  int64_t num_value_heads = 4;             // more than num_heads: grouped value heads
  int64_t head_dim = 48;                   // of keys and of values
  int64_t short_conv_kernel_size = 4;      // 0: none, SiLU alone
  std::optional<double> gate_lower_bound;  // null: g = -exp(A_log) softplus(z + dt_bias)
  bool allow_neg_eigval = false;           // beta in (0, 2) instead of (0, 1)
  std::string output_gate = "sigmoid";     // sigmoid | swish | none
  bool use_full_rank_gate = false;         // its logits from one matrix, not a low-rank pair

  template <class V>
  void visit(V& v) {
    auto positive = [](int64_t x) { return x > 0; };
    v("num_heads", num_heads, "a count above 0", positive);
    v("num_value_heads", num_value_heads, "a count above 0", positive);
    v("head_dim", head_dim, "a count above 0", positive);
    v("short_conv_kernel_size", short_conv_kernel_size, "0 (no convolution), 2, 3 or 4",
      [](int64_t x) { return x == 0 || (x >= 2 && x <= 4); });
    v("gate_lower_bound", gate_lower_bound, "null (softplus gate) or a number from -5 to below 0",
      [](const auto& x) { return !x || (*x >= -5 && *x < 0); });
    v("allow_neg_eigval", allow_neg_eigval, "true or false", [](bool) { return true; });
    v("output_gate", output_gate, "sigmoid, swish or none",
      [](const std::string& s) { return s == "sigmoid" || s == "swish" || s == "none"; });
    v("use_full_rank_gate", use_full_rank_gate, "true or false", [](bool) { return true; });
  }
  std::vector<std::pair<std::string, std::string>> problems() const {
    std::vector<std::pair<std::string, std::string>> found;
    if (num_value_heads % num_heads != 0)
      found.push_back({"num_value_heads", "expected a multiple of num_heads (" +
                                              std::to_string(num_heads) + "), got \"" +
                                              std::to_string(num_value_heads) + "\""});
    if (use_full_rank_gate && output_gate == "none")
      found.push_back({"use_full_rank_gate", "expected false with output_gate none, got \"true\""});
    return found;
  }
};

struct MlaConfig {
  int64_t num_attention_heads = 4;
  std::optional<int64_t> q_lora_rank;  // null: q from one matrix
  int64_t kv_lora_rank = 64;
  int64_t qk_nope_head_dim = 32;
  int64_t qk_rope_head_dim = 16;
  int64_t v_head_dim = 32;
  bool use_nope = true;  // false: rotary positions with rope_theta on the rope slice
  double rope_theta = 10000;
  bool use_output_gate = false;  // sigmoid gate between attention and output projection

  template <class V>
  void visit(V& v) {
    auto positive = [](int64_t x) { return x > 0; };
    v("num_attention_heads", num_attention_heads, "a count above 0", positive);
    v("q_lora_rank", q_lora_rank, "null (no low rank) or a count above 0",
      [](const auto& x) { return !x || *x > 0; });
    v("kv_lora_rank", kv_lora_rank, "a count above 0", positive);
    v("qk_nope_head_dim", qk_nope_head_dim, "a count above 0", positive);
    v("qk_rope_head_dim", qk_rope_head_dim, "an even count above 0",
      [](int64_t x) { return x > 0 && x % 2 == 0; });
    v("v_head_dim", v_head_dim, "a count above 0", positive);
    v("use_nope", use_nope, "true or false", [](bool) { return true; });
    v("rope_theta", rope_theta, "a number above 1", [](double x) { return x > 1; });
    v("use_output_gate", use_output_gate, "true or false", [](bool) { return true; });
  }
};

struct MoeConfig {
  int64_t first_k_dense_replace = 1;  // layers in front whose FFN is dense
  int64_t num_experts = 16;
  int64_t num_experts_per_token = 2;
  int64_t moe_intermediate_size = 128;  // of one expert
  int64_t num_shared_experts = 1;       // that every token meets, as one MLP of their joint width
  std::string moe_router_activation_func = "sigmoid";  // sigmoid | softmax
  bool moe_renormalize = true;  // a token's weights sum to routed_scaling_factor
  double routed_scaling_factor = 2.446;
  double bias_update_rate = 1e-3;  // of the selection bias, a step; 0: no load balancing

  template <class V>
  void visit(V& v) {
    auto positive = [](int64_t x) { return x > 0; };
    auto count = [](int64_t x) { return x >= 0; };
    v("first_k_dense_replace", first_k_dense_replace, "a count of at least 0", count);
    v("num_experts", num_experts, "a count above 0", positive);
    v("num_experts_per_token", num_experts_per_token, "a count above 0", positive);
    v("moe_intermediate_size", moe_intermediate_size, "a count above 0", positive);
    v("num_shared_experts", num_shared_experts, "a count of at least 0", count);
    v("moe_router_activation_func", moe_router_activation_func, "sigmoid or softmax",
      [](const std::string& s) { return s == "sigmoid" || s == "softmax"; });
    v("moe_renormalize", moe_renormalize, "true or false", [](bool) { return true; });
    v("routed_scaling_factor", routed_scaling_factor, "a number above 0",
      [](double x) { return x > 0; });
    v("bias_update_rate", bias_update_rate, "a number of at least 0",
      [](double x) { return x >= 0; });
  }
  std::vector<std::pair<std::string, std::string>> problems() const {
    if (num_experts_per_token <= num_experts) return {};
    return {{"num_experts_per_token", "expected at most num_experts (" +
                                          std::to_string(num_experts) + "), got \"" +
                                          std::to_string(num_experts_per_token) + "\""}};
  }
};

// What every layer is told of the model around it.
struct LayerConfig {
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  double rms_norm_eps = 1e-5;
  KdaConfig kda;
  MlaConfig mla;
  MoeConfig moe{};
};

}  // namespace sluice
