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

std::string cost_table(const Lm& lm, const ParamStore& params, int64_t context_tokens) {
  struct Row {
    int64_t layers = 0, parameters = 0;
    double flops = 0;
  };
  std::map<std::string, Row> rows;
  auto elements = [&](const std::string& prefix) {
    int64_t n = 0;
    for (int i = 0; i < params.size(); ++i)
      if (params.spec({i}).name.rfind(prefix, 0) == 0) n += params.spec({i}).numel();
    return n;
  };
  for (int64_t i = 0; i < lm.config().num_hidden_layers; ++i) {
    const std::string kind = lm.pattern()[size_t(i)], layer = cat("layers.", i, ".");
    const LayerCost m = lm.mixer_cost(i, context_tokens), f = lm.ffn_cost(i);
    Row& mixer = rows[kind];
    ++mixer.layers;
    mixer.parameters += elements(layer + kind + ".") + elements(layer + "mixer_norm");
    mixer.flops += m.matmul + m.sequence;
    Row& ffn = rows["ffn " + lm.config().ffn];
    ++ffn.layers;
    ffn.parameters += elements(layer + "ffn.") + elements(layer + "ffn_norm");
    ffn.flops += f.matmul + f.sequence;
  }
  rows["embedding"] = {1, elements("embedding."), 0};
  rows["head"] = {1, elements("head."), head_flops(lm)};

  std::string out = fmt::format("{:<12} {:>6} {:>14} {:>22}\n", "type", "layers", "parameters",
                                "forward MFLOP/token");
  Row sum;
  for (const auto& [name, r] : rows) {
    out +=
        fmt::format("{:<12} {:>6} {:>14} {:>22.3f}\n", name, r.layers, r.parameters, r.flops / 1e6);
    sum.parameters += r.parameters;
    sum.flops += r.flops;
  }
  return out + fmt::format("{:<12} {:>6} {:>14} {:>22.3f}\n", "all", lm.config().num_hidden_layers,
                           sum.parameters, sum.flops / 1e6);
}

}  // namespace sluice
