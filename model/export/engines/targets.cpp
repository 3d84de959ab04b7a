// model/export/engines/targets.cpp -- the rules of the engines' loaders and kernels.
#include "model/export/engines/targets.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "kernels/base/check.h"

namespace sluice {

namespace {

constexpr std::array kEngines{"transformers", "vllm", "sglang", "llama.cpp", "fla"};

struct Mixers {
  explicit Mixers(const LmConfig& model) {
    for (const std::string& m : model.pattern()) {
      kda += m == "kda";
      gdn += m == "gdn";
      mla += m == "mla";
      others += m != "kda" && m != "gdn" && m != "mla";
      if (m != "kda" && m != "gdn" && m != "mla") other = m;
    }
  }
  int64_t kda = 0, gdn = 0, mla = 0, others = 0;
  std::string other;
};

class Findings {
 public:
  // Unless `ok`: "model.kda.head_dim is 48, expected 128 (because)".
  template <class T>
  void need(bool ok, const char* key, const T& is, const std::string& expected,
            const char* because) {
    if (!ok)
      found_.push_back(fmt::format("model.{} is {}, expected {} ({})", key, is, expected, because));
  }
  std::vector<std::string> found_;
};

std::string text(const std::optional<int64_t>& x) {
  return x ? std::to_string(*x) : "null";
}
std::string text(const std::optional<double>& x) {
  return x ? fmt::format("{}", *x) : "null";
}

void check_linear_layers(const LmConfig& m, const std::string& engine, Findings& f) {
  const KdaConfig& k = m.kda;
  if (engine != "fla") {
    const char* class_has_none = "its class has no such variant and would ignore it";
    f.need(!k.gate_lower_bound, "kda.gate_lower_bound", text(k.gate_lower_bound), "null",
           class_has_none);
    f.need(!k.allow_neg_eigval, "kda.allow_neg_eigval", true, "false", class_has_none);
    f.need(k.num_heads == k.num_value_heads, "kda.num_value_heads", k.num_value_heads,
           fmt::format("num_heads ({})", k.num_heads), class_has_none);
  }
  f.need(k.output_gate == "sigmoid", "kda.output_gate", k.output_gate, "sigmoid",
         "the only one it has");
  f.need(!k.use_full_rank_gate, "kda.use_full_rank_gate", true, "false",
         "its gate is a low-rank pair");
  f.need(k.short_conv_kernel_size > 0, "kda.short_conv_kernel_size", k.short_conv_kernel_size,
         "2, 3 or 4", "its layers always convolve");
  if (engine == "vllm" || engine == "sglang") {
    f.need(k.short_conv_kernel_size == 4, "kda.short_conv_kernel_size", k.short_conv_kernel_size,
           "4", "what its kernels are tested with");
    f.need(m.rms_norm_eps == 1e-5, "rms_norm_eps", m.rms_norm_eps, "1e-05",
           "its output norm has no other");
  }
  if (engine == "llama.cpp")
    f.need(k.num_heads == m.mla.num_attention_heads, "kda.num_heads", k.num_heads,
           fmt::format("mla.num_attention_heads ({})", m.mla.num_attention_heads),
           "one count serves both kinds of layers");
}

// By which llama.cpp's deepseek2 knows models whose queries have no low-rank form.
bool few_layers(const LmConfig& m) {
  return m.num_hidden_layers == 26 || m.num_hidden_layers == 27 ||
         (m.num_hidden_layers == 48 && m.vocab_size == 128256);
}

void check_mla_layers(const LmConfig& m, Architecture a, const std::string& engine, Findings& f) {
  const MlaConfig& c = m.mla;
  f.need(!c.use_output_gate, "mla.use_output_gate", true, "false", "its attention has none");
  if (a == Architecture::kimi_linear) {
    f.need(c.use_nope, "mla.use_nope", false, "true", "its class never rotates");
    if (engine != "transformers")
      f.need(!c.q_lora_rank, "mla.q_lora_rank", text(c.q_lora_rank), "null",
             "its class has one query matrix");
  }
  if (a == Architecture::deepseek_v3 && engine == "llama.cpp" && few_layers(m))
    f.need(!c.q_lora_rank, "mla.q_lora_rank", text(c.q_lora_rank), "null",
           "it takes this number of layers for a model without");
  if (engine == "vllm" || engine == "sglang")
    f.need(c.kv_lora_rank + c.qk_rope_head_dim == 576, "mla.kv_lora_rank", c.kv_lora_rank,
           fmt::format("{}", 576 - c.qk_rope_head_dim),
           "its attention takes latents of 576 with the rope part");
}

void check_experts(const LmConfig& m, const std::string& engine, Findings& f) {
  const MoeConfig& c = m.moe;
  f.need(c.num_shared_experts >= 1, "moe.num_shared_experts", c.num_shared_experts, "1 or more",
         "it always has a shared expert");
  if (engine != "vllm")
    f.need(c.moe_router_activation_func == "sigmoid", "moe.moe_router_activation_func",
           c.moe_router_activation_func, "sigmoid", "the only one it has");
  if (engine == "llama.cpp")
    f.need(c.moe_renormalize, "moe.moe_renormalize", false, "true", "it always renormalises");
  // A single weight divided by itself is 1; ours stays the score.
  f.need(c.num_experts_per_token > 1 || !c.moe_renormalize, "moe.num_experts_per_token",
         c.num_experts_per_token, "2 or more, or moe_renormalize false",
         "it renormalises a single weight to 1, we do not");
}

}  // namespace

const char* name(Architecture a) {
  switch (a) {
    case Architecture::kimi_linear: return "kimi_linear";
    case Architecture::deepseek_v3: return "deepseek_v3";
    case Architecture::fla_kda: return "kda (flash-linear-attention)";
  }
  return "";
}

Architecture architecture_of(const LmConfig& m) {
  const Mixers n(m);
  SLUICE_CHECK(n.others == 0, "a ", n.other,
               " layer: no engine has a class for it; expected kda, gdn or mla layers");
  if (n.mla == 0) {
    SLUICE_CHECK(n.gdn == 0,
                 "gdn layers alone: no engine has a class for them; expected mla layers too "
                 "(model.ratio 3:1, say)");
    SLUICE_CHECK(
        m.ffn == "dense",
        "kda layers alone with ffn moe: the classes of MoE models want an mla layer; expected "
        "ffn dense, or mla layers too (model.ratio 3:1, say)");
    return Architecture::fla_kda;
  }
  if (n.kda + n.gdn > 0) return Architecture::kimi_linear;
  SLUICE_CHECK(
      !m.mla.use_nope,
      "mla layers alone without positions: deepseek_v3 rotates, and kimi_linear wants a kda "
      "layer; expected model.mla.use_nope false, or kda layers too");
  return Architecture::deepseek_v3;
}

bool is_engine(const std::string& engine) {
  return std::find(kEngines.begin(), kEngines.end(), engine) != kEngines.end();
}
const char* engines_text() {
  return "transformers, vllm, sglang, llama.cpp or fla";
}

std::vector<std::string> obstacles(const LmConfig& m, const std::string& engine) {
  SLUICE_CHECK(is_engine(engine), "engine ", engine, ", expected ", engines_text());
  Architecture a{};
  try {
    a = architecture_of(m);
  } catch (const Error& e) {
    return {e.what()};
  }
  if ((a == Architecture::fla_kda) != (engine == "fla"))
    return {fmt::format("model.ratio {}: the layers ask for {}, which {} {}", m.ratio, name(a),
                        engine,
                        engine == "fla" ? "has not: its class has kda layers only" : "has not")};
  Findings f;
  if (a != Architecture::deepseek_v3) check_linear_layers(m, engine, f);
  if (a != Architecture::fla_kda) check_mla_layers(m, a, engine, f);
  if (m.ffn == "moe") check_experts(m, engine, f);
  return f.found_;
}

std::vector<std::string> remarks(const LmConfig& m, const std::string& engine) {
  std::vector<std::string> list;
  const Mixers n(m);
  if (engine == "transformers" && n.mla > 0 && m.rms_norm_eps != 1e-6)
    list.push_back(fmt::format(
        "transformers normalises latents with an epsilon of 1e-06, whatever rms_norm_eps ({}) "
        "says: below rounding unless latents are tiny",
        m.rms_norm_eps));
  if (engine == "llama.cpp" && n.kda + n.gdn > 0)
    list.push_back(
        fmt::format("llama.cpp normalises q and k with rms_norm_eps ({}) under the root, where "
                    "training has 1e-06: below rounding unless they are tiny",
                    m.rms_norm_eps));
  if (engine == "llama.cpp" && n.kda + n.gdn == 0 && !m.mla.q_lora_rank && !few_layers(m))
    list.push_back(
        "llama.cpp's converter leaves out attention.q_lora_rank of such a folder, and its loader "
        "then refuses the file: export to a .gguf file directly");
  if ((engine == "vllm" || engine == "sglang") && m.ffn == "moe" && n.kda + n.gdn > 0)
    list.push_back(
        engine + " keeps the correction bias in bf16: choices of experts at near-ties may differ");
  return list;
}

}  // namespace sluice
