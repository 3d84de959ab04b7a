// model/export/published.cpp -- one table, and the parts of fused parameters.
#include "model/export/published.h"

#include <string_view>

namespace sluice {

namespace {

// {part}: the row block, {expert}: the number in the stack. Ours without "layers.N.".
struct Rule {
  std::string_view ours, published;
};

constexpr Rule kOfTheModel[] = {
    {"embedding.weight", "model.embed_tokens.weight"},
    {"head.norm", "model.norm.weight"},
    {"head.weight", "lm_head.weight"},
};

constexpr Rule kOfALayer[] = {
    {"mixer_norm", "input_layernorm.weight"},
    {"ffn_norm", "post_attention_layernorm.weight"},
    // kda and mla: what is not here keeps its name, below
    {"kda.qkv_proj", "self_attn.{part}.weight"},
    {"kda.qkv_conv", "self_attn.{part}.weight"},
    {"kda.fgb_proj", "self_attn.{part}.weight"},
    {"kda.A_log", "self_attn.A_log"},
    {"kda.dt_bias", "self_attn.dt_bias"},
    {"ffn.gate_up_proj", "mlp.{part}.weight"},
    {"ffn.down_proj", "mlp.down_proj.weight"},
    {"ffn.router", "block_sparse_moe.gate.weight"},
    {"ffn.e_score_correction_bias", "block_sparse_moe.gate.e_score_correction_bias"},
    {"ffn.experts.gate_up_proj", "block_sparse_moe.experts.{expert}.{part}.weight"},
    {"ffn.experts.down_proj", "block_sparse_moe.experts.{expert}.w2.weight"},
    {"ffn.shared_experts.gate_up_proj", "block_sparse_moe.shared_experts.{part}.weight"},
    {"ffn.shared_experts.down_proj", "block_sparse_moe.shared_experts.down_proj.weight"},
};

std::string replaced(std::string text, std::string_view what, const std::string& by) {
  const size_t at = text.find(what);
  return at == std::string::npos ? text : text.replace(at, what.size(), by);
}

// With {part} and {expert} still in it; empty: there is none.
std::string published_name(const std::string& ours) {
  for (const Rule& r : kOfTheModel)
    if (r.ours == ours) return std::string(r.published);
  if (ours.rfind("layers.", 0) != 0) return "";
  const size_t dot = ours.find('.', 7);
  if (dot == std::string::npos) return "";
  const std::string layer = "model." + ours.substr(0, dot + 1), rest = ours.substr(dot + 1);
  for (const Rule& r : kOfALayer)
    if (r.ours == rest) return layer + std::string(r.published);
  for (const std::string_view mixer : {"kda.", "mla."})
    if (rest.rfind(mixer, 0) == 0) return layer + "self_attn." + rest.substr(4) + ".weight";
  return "";
}

// Experts have names of their own for the matrices of a gated MLP.
std::string part_name(const ParamSpec& spec, const std::string& part) {
  if (!spec.expert) return part;
  return part == "gate_proj" ? "w1" : "w3";
}

std::vector<int64_t> published_shape(const std::string& name, size_t rank, int64_t rows,
                                     int64_t columns) {
  auto ends_with = [&](std::string_view end) {
    return name.size() >= end.size() &&
           name.compare(name.size() - end.size(), end.size(), end) == 0;
  };
  if (ends_with(".A_log")) return {1, 1, rows, 1};
  if (ends_with(".dt_bias")) return {rows * columns};
  if (ends_with("_conv1d.weight")) return {rows, 1, columns};
  return rank == 1 ? std::vector<int64_t>{rows} : std::vector<int64_t>{rows, columns};
}

}  // namespace

int64_t PublishedTensor::numel() const {
  int64_t n = 1;
  for (const int64_t d : shape) n *= d;
  return n;
}

std::vector<PublishedTensor> published_tensors(const ParamStore& params) {
  std::vector<PublishedTensor> all;
  for (int i = 0; i < params.size(); ++i) {
    const ParamSpec& spec = params.spec({i});
    const std::string pattern = published_name(spec.name);
    SLUICE_CHECK(!pattern.empty(), spec.name, " has no published name");
    const size_t rank = spec.shape.size();
    const int64_t experts = rank == 3 ? spec.shape[0] : 1;
    const int64_t rows = spec.shape[rank == 3 ? 1 : 0], columns = rank > 1 ? spec.shape.back() : 1;
    std::vector<RowBlock> parts = spec.row_blocks;
    if (parts.empty()) parts.push_back({"", rows});
    int64_t at = 0;
    for (int64_t e = 0; e < experts; ++e)
      for (const RowBlock& part : parts) {
        const std::string name = replaced(replaced(pattern, "{expert}", std::to_string(e)),
                                          "{part}", part_name(spec, part.name));
        all.push_back({name, published_shape(name, rank, part.rows, columns), {i}, at});
        at += part.rows * columns;
      }
    SLUICE_CHECK(at == spec.numel(), spec.name, ": row blocks cover ", at, " of ", spec.numel());
  }
  return all;
}

}  // namespace sluice
