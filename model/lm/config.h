// model/lm/config.h -- the `model:` section of a config.
#pragma once

#include "model/layers/config.h"
#include "model/lm/pattern.h"

namespace sluice {

struct LmConfig {
  std::optional<int64_t> vocab_size;  // null: the tokenizer's
  int64_t hidden_size = 192;
  int64_t num_hidden_layers = 8;
  std::string ratio = "3:1";        // linear : full
  std::vector<std::string> layers;  // instead of ratio: the mixer of each layer
  std::string linear = "kda";       // the mixer of the first number of `ratio`
  std::string full = "mla";         // and of the second
  KdaConfig kda;                    // of gdn and mamba2 layers too
  MlaConfig mla;
  std::string ffn = "dense";  // dense | moe: of the layers from first_k_dense_replace on
  MoeConfig moe;
  std::string hidden_act = "silu";
  int64_t intermediate_size = 512;
  double rms_norm_eps = 1e-5;
  double initializer_range = 0.02;
  bool tie_word_embeddings = false;

  template <class V>
  void visit(V& v) {
    auto positive = [](int64_t x) { return x > 0; };
    auto any = [](const auto&) { return true; };
    v("vocab_size", vocab_size, "null (the tokenizer's) or a count above 1",
      [](const auto& x) { return !x || *x > 1; });
    v("hidden_size", hidden_size, "a count above 0", positive);
    v("num_hidden_layers", num_hidden_layers, "a count above 0", positive);
    v("ratio", ratio, "two counts linear:full, not both 0, as in \"3:1\"", is_ratio);
    v("layers", layers, "a list of mixers, one a layer", any);
    v("linear", linear, known_mixers_text(), is_known_mixer);
    v("full", full, known_mixers_text(), is_known_mixer);
    v.section("kda", kda);
    v.section("mla", mla);
    v("ffn", ffn, "dense or moe", [](const std::string& s) { return s == "dense" || s == "moe"; });
    v.section("moe", moe);
    v("hidden_act", hidden_act, "silu", [](const std::string& s) { return s == "silu"; });
    v("intermediate_size", intermediate_size, "a count above 0", positive);
    v("rms_norm_eps", rms_norm_eps, "a number above 0", [](double x) { return x > 0; });
    v("initializer_range", initializer_range, "a number above 0", [](double x) { return x > 0; });
    v("tie_word_embeddings", tie_word_embeddings, "true or false", any);
  }

  std::vector<std::pair<std::string, std::string>> problems() const {
    std::vector<std::pair<std::string, std::string>> found;
    const std::string p = pattern_problem(*this);
    if (!p.empty()) found.push_back({layers.empty() ? "ratio" : "layers", p});
    if (ffn == "moe" && moe.first_k_dense_replace >= num_hidden_layers)
      found.push_back({"ffn", "expected dense, as moe.first_k_dense_replace (" +
                                  std::to_string(moe.first_k_dense_replace) + ") covers all " +
                                  std::to_string(num_hidden_layers) + " layers, got \"moe\""});
    for (const auto& problem : unused_kda_keys(*this)) found.push_back(problem);
    return found;
  }

  // The mixer of each layer. Throws what problems() would report.
  std::vector<std::string> pattern() const { return layer_pattern(*this); }
  // The FFN of a layer: the first ones of a mixture of experts are dense.
  std::string ffn_of(int64_t layer) const {
    return layer < moe.first_k_dense_replace ? "dense" : ffn;
  }
};

}  // namespace sluice
