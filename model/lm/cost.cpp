// model/lm/cost.cpp -- sums over the blocks.
#include "model/lm/cost.h"

#include <fmt/format.h>

#include <map>

namespace sluice {

static double head_flops(const Lm& lm) {
  return 2.0 * double(lm.config().hidden_size) * double(*lm.config().vocab_size);
}

double train_flops_per_token(const Lm& lm, int64_t context_tokens) {
  double forward = head_flops(lm);
  for (int64_t i = 0; i < lm.config().num_hidden_layers; ++i) {
    const LayerCost m = lm.mixer_cost(i, context_tokens), f = lm.ffn_cost(i);
    forward += m.matmul + m.sequence + f.matmul + f.sequence;
  }
  return 3 * forward;
}

// Of parameters whose names start with `prefix`: all, and those that one token meets.
struct Elements {
  int64_t all = 0, active = 0;
};
static Elements elements(const Lm& lm, const ParamStore& params, const std::string& prefix) {
  const MoeConfig& moe = lm.config().moe;
  Elements sum;
  for (int i = 0; i < params.size(); ++i) {
    const ParamSpec& spec = params.spec({i});
    if (spec.name.rfind(prefix, 0) != 0) continue;
    sum.all += spec.numel();
    sum.active +=
        spec.expert ? spec.numel() / moe.num_experts * moe.num_experts_per_token : spec.numel();
  }
  return sum;
}

int64_t active_parameters(const Lm& lm, const ParamStore& params) {
  return elements(lm, params, "").active;
}

std::string cost_table(const Lm& lm, const ParamStore& params, int64_t context_tokens) {
  struct Row {
    int64_t layers = 0;
    Elements parameters;
    double flops = 0;
  };
  std::map<std::string, Row> rows;
  auto add = [&](Row& row, const std::string& prefix) {
    const Elements e = elements(lm, params, prefix);
    row.parameters.all += e.all;
    row.parameters.active += e.active;
  };
  for (int64_t i = 0; i < lm.config().num_hidden_layers; ++i) {
    const std::string kind = lm.pattern()[size_t(i)], layer = cat("layers.", i, ".");
    const LayerCost m = lm.mixer_cost(i, context_tokens), f = lm.ffn_cost(i);
    Row& mixer = rows[kind];
    ++mixer.layers;
    add(mixer, layer + kind + ".");
    add(mixer, layer + "mixer_norm");
    mixer.flops += m.matmul + m.sequence;
    Row& ffn = rows["ffn " + lm.config().ffn_of(i)];
    ++ffn.layers;
    add(ffn, layer + "ffn.");
    add(ffn, layer + "ffn_norm");
    ffn.flops += f.matmul + f.sequence;
  }
  rows["embedding"] = {1, elements(lm, params, "embedding."), 0};
  rows["head"] = {1, elements(lm, params, "head."), head_flops(lm)};

  std::string out = fmt::format("{:<12} {:>6} {:>14} {:>14} {:>22}\n", "type", "layers",
                                "parameters", "active", "forward MFLOP/token");
  const auto line = [](const std::string& name, const Row& r) {
    return fmt::format("{:<12} {:>6} {:>14} {:>14} {:>22.3f}\n", name, r.layers, r.parameters.all,
                       r.parameters.active, r.flops / 1e6);
  };
  Row sum;
  for (const auto& [name, r] : rows) {
    out += line(name, r);
    sum.parameters.all += r.parameters.all;
    sum.parameters.active += r.parameters.active;
    sum.flops += r.flops;
  }
  sum.layers = lm.config().num_hidden_layers;
  return out + line("all", sum);
}

}  // namespace sluice
