// model/export/engines/gguf_model.cpp -- names, keys and layouts of llama.cpp.
#include "model/export/engines/gguf_model.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <string_view>

namespace sluice {
namespace {

using Change = GgufSource::Change;

struct Rule {
  std::string_view theirs, gguf;  // of a folder, without "model.layers.N."; without "blk.N."
};
constexpr Rule kRules[] = {
    {"input_layernorm.weight", "attn_norm.weight"},
    {"post_attention_layernorm.weight", "ffn_norm.weight"},
    {"self_attn.q_proj.weight", "attn_q.weight"},
    {"self_attn.k_proj.weight", "attn_k.weight"},
    {"self_attn.v_proj.weight", "attn_v.weight"},
    {"self_attn.o_proj.weight", "attn_output.weight"},
    {"self_attn.q_conv1d.weight", "ssm_conv1d_q.weight"},
    {"self_attn.k_conv1d.weight", "ssm_conv1d_k.weight"},
    {"self_attn.v_conv1d.weight", "ssm_conv1d_v.weight"},
    {"self_attn.f_a_proj.weight", "ssm_f_a.weight"},
    {"self_attn.f_b_proj.weight", "ssm_f_b.weight"},
    {"self_attn.g_a_proj.weight", "ssm_g_a.weight"},
    {"self_attn.g_b_proj.weight", "ssm_g_b.weight"},
    {"self_attn.b_proj.weight", "ssm_beta.weight"},
    {"self_attn.A_log", "ssm_a"},
    {"self_attn.dt_bias", "ssm_dt.bias"},
    {"self_attn.o_norm.weight", "ssm_norm.weight"},
    {"self_attn.q_a_proj.weight", "attn_q_a.weight"},
    {"self_attn.q_a_layernorm.weight", "attn_q_a_norm.weight"},
    {"self_attn.q_b_proj.weight", "attn_q_b.weight"},
    {"self_attn.kv_a_proj_with_mqa.weight", "attn_kv_a_mqa.weight"},
    {"self_attn.kv_a_layernorm.weight", "attn_kv_a_norm.weight"},
    {"mlp.gate_proj.weight", "ffn_gate.weight"},
    {"mlp.up_proj.weight", "ffn_up.weight"},
    {"mlp.down_proj.weight", "ffn_down.weight"},
    {"moe.gate.weight", "ffn_gate_inp.weight"},
    {"moe.gate.e_score_correction_bias", "exp_probs_b.bias"},
    {"moe.experts.w1.weight", "ffn_gate_exps.weight"},
    {"moe.experts.w3.weight", "ffn_up_exps.weight"},
    {"moe.experts.w2.weight", "ffn_down_exps.weight"},
    {"moe.experts.gate_proj.weight", "ffn_gate_exps.weight"},
    {"moe.experts.up_proj.weight", "ffn_up_exps.weight"},
    {"moe.experts.down_proj.weight", "ffn_down_exps.weight"},
    {"moe.shared_experts.gate_proj.weight", "ffn_gate_shexp.weight"},
    {"moe.shared_experts.up_proj.weight", "ffn_up_shexp.weight"},
    {"moe.shared_experts.down_proj.weight", "ffn_down_shexp.weight"},
};

bool ends_with(std::string_view name, std::string_view end) {
  return name.size() >= end.size() && name.substr(name.size() - end.size()) == end;
}

// "mlp.experts.3.down_proj.weight" or "block_sparse_moe.experts.3.w2.weight" without its number,
// both as "moe...."; what is no expert's stays what it is.
std::string without_expert(const std::string& rest) {
  for (const std::string_view moe : {"block_sparse_moe.", "mlp."}) {
    if (rest.rfind(moe, 0) != 0) continue;
    std::string tail = rest.substr(moe.size());
    if (moe == "mlp." && tail.rfind("experts.", 0) != 0 && tail.rfind("gate.", 0) != 0 &&
        tail.rfind("shared_experts.", 0) != 0)
      return rest;
    if (tail.rfind("experts.", 0) == 0) tail.erase(8, tail.find('.', 8) + 1 - 8);
    return "moe." + tail;
  }
  return rest;
}

std::string gguf_name(const std::string& theirs) {
  if (theirs == "model.embed_tokens.weight") return "token_embd.weight";
  if (theirs == "model.norm.weight") return "output_norm.weight";
  if (theirs == "lm_head.weight") return "output.weight";
  constexpr std::string_view kLayers = "model.layers.";
  const size_t dot = theirs.find('.', kLayers.size());
  SLUICE_CHECK(theirs.rfind(kLayers, 0) == 0 && dot != std::string::npos, theirs,
               " has no name in a GGUF file");
  const std::string layer = theirs.substr(kLayers.size(), dot - kLayers.size());
  const std::string rest = without_expert(theirs.substr(dot + 1));
  for (const Rule& r : kRules)
    if (r.theirs == rest) return "blk." + layer + "." + std::string(r.gguf);
  SLUICE_CHECK(false, theirs, " has no name in a GGUF file");
  return "";
}

// llama.cpp computes with these in f32 alone.
bool stays_f32(const GgufTensor& t) {
  return t.shape.size() == 1 || ends_with(t.name, "_norm.weight") ||
         !ends_with(t.name, ".weight") || ends_with(t.name, ".ffn_gate_inp.weight") ||
         t.name.find(".ssm_conv1d_") != std::string::npos;
}

void add_key_and_value_heads(const MlaConfig& m, const EngineTensor& t,
                             std::vector<GgufSource>& all) {
  const std::string layer = t.name.substr(13, t.name.find('.', 13) - 13);  // after "model.layers."
  const int64_t H = m.num_attention_heads, R = m.kv_lora_rank;
  all.push_back(
      {.tensor = {.name = "blk." + layer + ".attn_k_b.weight", .shape = {H, R, m.qk_nope_head_dim}},
       .parts = {t},
       .change = Change::keys});
  all.push_back(
      {.tensor = {.name = "blk." + layer + ".attn_v_b.weight", .shape = {H, m.v_head_dim, R}},
       .parts = {t},
       .change = Change::value_heads});
}

std::vector<int64_t> gguf_shape(const EngineTensor& t, const std::string& name) {
  if (name.find(".ssm_conv1d_") != std::string::npos)
    return {1, t.shape[0], 1, t.shape[2]};  // [P, 1, W]
  return t.shape;
}

// [rows, columns] -> [columns, rows]
void transpose(const std::vector<float>& from, int64_t rows, int64_t columns, float* to) {
  for (int64_t c = 0; c < columns; ++c)
    for (int64_t r = 0; r < rows; ++r) *to++ = from[size_t(r * columns + c)];
}

}  // namespace

std::vector<GgufSource> gguf_tensors(const LmConfig& model,
                                     const std::vector<EngineTensor>& tensors, GgufType type) {
  std::vector<GgufSource> all;
  std::map<std::string, size_t> stacks;
  for (const EngineTensor& t : tensors) {
    if (ends_with(t.name, ".kv_b_proj.weight")) {
      add_key_and_value_heads(model.mla, t, all);
      continue;
    }
    const std::string name = gguf_name(t.name);
    const bool stacked = ends_with(name, "_exps.weight");
    if (const auto stack = stacks.find(name); stacked && stack != stacks.end()) {
      all[stack->second].parts.push_back(t);
      ++all[stack->second].tensor.shape[0];
      continue;
    }
    GgufSource s{.tensor = {.name = name, .shape = gguf_shape(t, name)}, .parts = {t}};
    if (stacked) s.tensor.shape.insert(s.tensor.shape.begin(), 1), stacks[name] = all.size();
    if (ends_with(name, ".ssm_a")) s.change = Change::minus_exp;
    all.push_back(std::move(s));
  }
  std::string refusals;
  for (GgufSource& s : all) {
    s.tensor.type = stays_f32(s.tensor) ? GgufType::f32 : type;
    const GgufBlock& b = block_of(s.tensor.type);
    if (s.tensor.shape.back() % b.elements != 0)
      refusals += cat("\n  ", s.tensor.name, " has rows of ", s.tensor.shape.back(), ", ", b.name,
                      " wants multiples of ", b.elements);
  }
  SLUICE_CHECK(refusals.empty(), "this model cannot be written as ", block_of(type).name, ":",
               refusals, "\nexpected --dtype f16 or bf16, or other sizes");
  return all;
}

namespace {

class TensorWriter {
 public:
  TensorWriter(GgufWriter& out, const TensorSource& weights, const ParamStore& params,
               const GgufSource& s)
      : out_(out), weights_(weights), params_(params), s_(s) {}

  void write(const std::function<void(int64_t)>& progress) {
    if (s_.change == Change::keys || s_.change == Change::value_heads)
      heads(progress);
    else
      for (const EngineTensor& part : s_.parts) pieces(part, progress);
  }

 private:
  void pieces(const EngineTensor& part, const std::function<void(int64_t)>& progress) {
    constexpr int64_t kPiece = int64_t(1) << 22;  // elements, of whole blocks of any type
    for (int64_t at = 0; at < part.numel(); at += kPiece) {
      const int64_t n = std::min(kPiece, part.numel() - at);
      in_.resize(size_t(n));
      read_values(weights_, params_, part, at, n, in_.data());
      if (s_.change == Change::minus_exp)
        for (float& x : in_) x = -std::exp(x);
      append(in_, progress);
    }
  }

  void heads(const std::function<void(int64_t)>& progress) {
    const std::vector<int64_t>& to = s_.tensor.shape;
    const int64_t H = to[0], all = s_.parts[0].numel() / H;  // elements of a head, K and V
    const bool keys = s_.change == Change::keys;
    const int64_t n = to[1] * to[2];
    for (int64_t h = 0; h < H; ++h) {
      in_.resize(size_t(n));
      read_values(weights_, params_, s_.parts[0], h * all + (keys ? 0 : all - n), n, in_.data());
      if (!keys) {
        append(in_, progress);
        continue;
      }
      turned_.resize(size_t(n));
      transpose(in_, to[2], to[1], turned_.data());
      append(turned_, progress);
    }
  }

  void append(const std::vector<float>& values, const std::function<void(int64_t)>& progress) {
    out_.append(s_.tensor.name, values.data(), int64_t(values.size()));
    const GgufBlock& b = block_of(s_.tensor.type);
    progress(int64_t(values.size()) / b.elements * b.bytes);
  }

  GgufWriter& out_;
  const TensorSource& weights_;
  const ParamStore& params_;
  const GgufSource& s_;
  std::vector<float> in_, turned_;
};

}  // namespace

void write_gguf_tensors(GgufWriter& out, const TensorSource& weights, const ParamStore& params,
                        const std::vector<GgufSource>& sources,
                        const std::function<void(int64_t, int64_t)>& progress) {
  int64_t all = 0, done = 0;
  for (const GgufSource& s : sources) all += s.tensor.bytes();
  for (const GgufSource& s : sources)
    TensorWriter(out, weights, params, s).write([&](int64_t bytes) {
      progress(done += bytes, all);
    });
}

}  // namespace sluice
