// model/export/engines/names.cpp -- tables of names, and the parts of fused parameters.
#include "model/export/engines/names.h"

#include <algorithm>
#include <string_view>

namespace sluice {

namespace {

// {part}: the row block, {expert}: the number in the stack. Ours without "layers.N.".
struct Rule {
  std::string_view ours, theirs;
};

constexpr Rule kMoonshotModel[] = {
    {"embedding.weight", "model.embed_tokens.weight"},
    {"head.norm", "model.norm.weight"},
    {"head.weight", "lm_head.weight"},
};
constexpr Rule kMoonshotLayer[] = {
    {"mixer_norm", "input_layernorm.weight"},
    {"ffn_norm", "post_attention_layernorm.weight"},
    // mixers: what is not here keeps its name, below
    {"kda.qkv_proj", "self_attn.{part}.weight"},
    {"kda.qkv_conv", "self_attn.{part}.weight"},
    {"kda.fgb_proj", "self_attn.{part}.weight"},
    {"kda.A_log", "self_attn.A_log"},
    {"kda.dt_bias", "self_attn.dt_bias"},
    {"gdn.qkv_proj", "self_attn.{part}.weight"},
    {"gdn.qkv_conv", "self_attn.{part}.weight"},
    {"gdn.agb_proj", "self_attn.{part}.weight"},
    {"gdn.A_log", "self_attn.A_log"},
    {"gdn.dt_bias", "self_attn.dt_bias"},
    {"ffn.gate_up_proj", "mlp.{part}.weight"},
    {"ffn.down_proj", "mlp.down_proj.weight"},
    {"ffn.router", "block_sparse_moe.gate.weight"},
    {"ffn.e_score_correction_bias", "block_sparse_moe.gate.e_score_correction_bias"},
    {"ffn.experts.gate_up_proj", "block_sparse_moe.experts.{expert}.{part}.weight"},
    {"ffn.experts.down_proj", "block_sparse_moe.experts.{expert}.w2.weight"},
    {"ffn.shared_experts.gate_up_proj", "block_sparse_moe.shared_experts.{part}.weight"},
    {"ffn.shared_experts.down_proj", "block_sparse_moe.shared_experts.down_proj.weight"},
};
constexpr Rule kDeepseekExperts[] = {
    {"ffn.router", "mlp.gate.weight"},
    {"ffn.e_score_correction_bias", "mlp.gate.e_score_correction_bias"},
    {"ffn.experts.gate_up_proj", "mlp.experts.{expert}.{part}.weight"},
    {"ffn.experts.down_proj", "mlp.experts.{expert}.down_proj.weight"},
    {"ffn.shared_experts.gate_up_proj", "mlp.shared_experts.{part}.weight"},
    {"ffn.shared_experts.down_proj", "mlp.shared_experts.down_proj.weight"},
};
constexpr Rule kFlaModel[] = {
    {"embedding.weight", "model.embeddings.weight"},
    {"head.norm", "model.norm.weight"},
    {"head.weight", "lm_head.weight"},
};
constexpr Rule kFlaLayer[] = {
    {"mixer_norm", "attn_norm.weight"},        {"ffn_norm", "mlp_norm.weight"},
    {"kda.qkv_proj", "attn.{part}.weight"},    {"kda.qkv_conv", "attn.{part}.weight"},
    {"kda.fgb_proj", "attn.{part}.weight"},    {"kda.f_b_proj", "attn.f_proj.1.weight"},
    {"kda.g_b_proj", "attn.g_proj.1.weight"},  {"kda.A_log", "attn.A_log"},
    {"kda.dt_bias", "attn.dt_bias"},           {"kda.o_norm", "attn.o_norm.weight"},
    {"kda.o_proj", "attn.o_proj.weight"},      {"ffn.gate_up_proj", "mlp.{part}.weight"},
    {"ffn.down_proj", "mlp.down_proj.weight"},
};

std::string replaced(std::string text, std::string_view what, std::string_view by) {
  const size_t at = text.find(what);
  return at == std::string::npos ? text : text.replace(at, what.size(), by);
}

template <size_t N>
std::string_view find_rule(const Rule (&rules)[N], std::string_view ours) {
  for (const Rule& r : rules)
    if (r.ours == ours) return r.theirs;
  return {};
}

std::string name_in_layer(Naming naming, std::string_view rest) {
  if (naming == Naming::fla) return std::string(find_rule(kFlaLayer, rest));
  if (naming == Naming::deepseek)
    if (const std::string_view r = find_rule(kDeepseekExperts, rest); !r.empty())
      return std::string(r);
  if (const std::string_view r = find_rule(kMoonshotLayer, rest); !r.empty()) return std::string(r);
  for (const std::string_view mixer : {"kda.", "gdn.", "mla."})
    if (rest.substr(0, 4) == mixer) return "self_attn." + std::string(rest.substr(4)) + ".weight";
  return "";
}

// With {part} and {expert} still in it; empty: there is none.
std::string pattern_of(Naming naming, const std::string& ours) {
  const std::string_view whole =
      naming == Naming::fla ? find_rule(kFlaModel, ours) : find_rule(kMoonshotModel, ours);
  if (!whole.empty()) return std::string(whole);
  if (ours.rfind("layers.", 0) != 0) return "";
  const size_t dot = ours.find('.', 7);
  if (dot == std::string::npos) return "";
  const std::string rest = name_in_layer(naming, std::string_view(ours).substr(dot + 1));
  return rest.empty() ? "" : "model." + ours.substr(0, dot + 1) + rest;
}

std::string part_name(Naming naming, const ParamSpec& spec, const std::string& part) {
  if (naming == Naming::moonshot && spec.expert) return part == "gate_proj" ? "w1" : "w3";
  if (naming == Naming::fla && part == "f_a_proj") return "f_proj.0";
  if (naming == Naming::fla && part == "g_a_proj") return "g_proj.0";
  return part == "a_proj" ? "f_a_proj" : part;  // the latter: padded to as many rows
}

bool ends_with(std::string_view name, std::string_view end) {
  return name.size() >= end.size() && name.substr(name.size() - end.size()) == end;
}

std::vector<int64_t> engine_shape(Naming naming, const std::string& name, size_t rank, int64_t rows,
                                  int64_t columns) {
  if (ends_with(name, ".A_log") && naming != Naming::fla) return {1, 1, rows, 1};
  if (ends_with(name, ".dt_bias")) return {rows * columns};
  if (ends_with(name, "_conv1d.weight")) return {rows, 1, columns};
  return rank == 1 ? std::vector<int64_t>{rows} : std::vector<int64_t>{rows, columns};
}

// The rows of the low-rank output gate: as many as a head has channels.
int64_t head_dim(const ParamSpec& projection) {
  for (const RowBlock& b : projection.row_blocks)
    if (b.name == "g_a_proj") return b.rows;
  SLUICE_CHECK(false, projection.name,
               " has no g_a_proj: a scalar gate with a full-rank or no "
               "output gate has no name in a kimi_linear folder");
  return 0;
}

// What a gdn layer lacks to be a KDA layer (interop: the same numbers, f_b_proj being 0 and 1).
void widen_scalar_gate(const ParamSpec& spec, ParamId id, int64_t K,
                       std::vector<EngineTensor>& all) {
  EngineTensor& last = all.back();
  if (ends_with(spec.name, ".dt_bias")) {
    last.content = Content::repeated;
    last.shape = {last.numel() * K};
    return;
  }
  const std::string f_a = "f_a_proj.weight";
  for (size_t i = all.size() - spec.row_blocks.size(); i < all.size(); ++i) {
    if (!ends_with(all[i].name, f_a)) continue;
    const int64_t H = all[i].shape[0];
    SLUICE_CHECK(H <= K, spec.name, ": ", H, " scalar gates do not fit into the ", K,
                 " rows of f_a_proj");
    all[i].content = Content::padded;
    all[i].shape[0] = K;
    all.push_back({.name = replaced(all[i].name, "f_a_proj", "f_b_proj"),
                   .shape = {H * K, K},
                   .id = id,
                   .content = Content::selector});
    return;
  }
}

}  // namespace

int64_t EngineTensor::numel() const {
  int64_t n = 1;
  for (const int64_t d : shape) n *= d;
  return n;
}

std::vector<EngineTensor> engine_tensors(const ParamStore& params, Naming naming) {
  std::vector<EngineTensor> all;
  int64_t K = 0;  // of the scalar gates of the layer at hand
  for (int i = 0; i < params.size(); ++i) {
    const ParamSpec& spec = params.spec({i});
    const std::string pattern = pattern_of(naming, spec.name);
    SLUICE_CHECK(!pattern.empty(), spec.name, " has no name in a folder of that kind");
    const size_t rank = spec.shape.size();
    const int64_t experts = rank == 3 ? spec.shape[0] : 1;
    const int64_t rows = spec.shape[rank == 3 ? 1 : 0], columns = rank > 1 ? spec.shape.back() : 1;
    std::vector<RowBlock> parts = spec.row_blocks;
    if (parts.empty()) parts.push_back({"", rows});
    int64_t at = 0;
    for (int64_t e = 0; e < experts; ++e)
      for (const RowBlock& part : parts) {
        const std::string name = replaced(replaced(pattern, "{expert}", std::to_string(e)),
                                          "{part}", part_name(naming, spec, part.name));
        all.push_back({.name = name,
                       .shape = engine_shape(naming, name, rank, part.rows, columns),
                       .id = {i},
                       .first_element = at,
                       .count = part.rows * columns});
        at += part.rows * columns;
      }
    SLUICE_CHECK(at == spec.numel(), spec.name, ": row blocks cover ", at, " of ", spec.numel());
    const bool gdn = spec.name.find(".gdn.") != std::string::npos;
    if (gdn && ends_with(spec.name, ".agb_proj")) K = head_dim(spec);
    if (gdn && (ends_with(spec.name, ".agb_proj") || ends_with(spec.name, ".dt_bias")))
      widen_scalar_gate(spec, {i}, K, all);
    if (naming == Naming::fla && ends_with(spec.name, ".g_b_proj"))  // ours has no bias
      all.push_back({.name = replaced(all.back().name, ".weight", ".bias"),
                     .shape = {rows},
                     .id = {i},
                     .content = Content::padded});
  }
  return all;
}

void read_values(const TensorSource& weights, const ParamStore& params, const EngineTensor& t,
                 int64_t first, int64_t count, float* out) {
  SLUICE_CHECK(first >= 0 && count >= 0 && first + count <= t.numel(), t.name, ": elements ", first,
               " to ", first + count, " of ", t.numel());
  const auto read = [&](int64_t from, int64_t n, float* to) {
    if (n > 0)
      weights.read_slice(params.spec(t.id).name, t.first_element + from,
                         make_tensor(to, DType::f32, Device::cpu, {n}));
  };
  if (t.content == Content::selector) {
    const int64_t K = t.shape[1];
    for (int64_t i = first; i < first + count; ++i) *out++ = i % K == i / K / K ? 1.0f : 0.0f;
  } else if (t.content == Content::repeated) {
    std::vector<float> heads(static_cast<size_t>(t.count));
    read(0, t.count, heads.data());
    const int64_t times = t.numel() / t.count;
    for (int64_t i = first; i < first + count; ++i) *out++ = heads[size_t(i / times)];
  } else {
    const int64_t there = std::clamp<int64_t>(t.count - first, 0, count);
    read(first, there, out);
    std::fill(out + there, out + count, 0.0f);
  }
}

}  // namespace sluice
