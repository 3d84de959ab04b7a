// model/lm/pattern.cpp -- periods of a ratio, and the checks of a list.
#include "model/lm/pattern.h"

#include <algorithm>
#include <charconv>

#include "kernels/base/check.h"
#include "kernels/base/nearest.h"
#include "model/layers/registry.h"
#include "model/lm/config.h"

namespace sluice {

struct Ratio {
  int32_t linear = 0, full = 0;
  int64_t period() const { return int64_t(linear) + full; }
};

static bool parse(const std::string& text, Ratio& r) {
  const char* end = text.data() + text.size();
  const auto a = std::from_chars(text.data(), end, r.linear);
  if (a.ec != std::errc() || a.ptr == end || *a.ptr != ':') return false;
  const auto b = std::from_chars(a.ptr + 1, end, r.full);
  return b.ec == std::errc() && b.ptr == end && r.linear >= 0 && r.full >= 0 && r.period() > 0;
}

bool is_ratio(const std::string& text) {
  Ratio r;
  return parse(text, r);
}

bool is_known_mixer(const std::string& kind) {
  const std::vector<std::string> known = mixer_kinds();
  return std::find(known.begin(), known.end(), kind) != known.end();
}

const char* known_mixers_text() {
  static const std::string text = [] {
    std::string s = "one of ";
    for (const std::string& k : mixer_kinds()) s += (s.back() == ' ' ? "" : ", ") + k;
    return s;
  }();
  return text.c_str();
}

std::string pattern_problem(const LmConfig& c) {
  if (!c.layers.empty()) {
    if (int64_t(c.layers.size()) != c.num_hidden_layers)
      return cat("expected ", c.num_hidden_layers, " entries (num_hidden_layers), got ",
                 c.layers.size());
    for (const std::string& kind : c.layers)
      if (!is_known_mixer(kind)) {
        const std::string nearest = nearest_name(mixer_kinds(), kind);
        return cat("expected ", known_mixers_text(), ", got \"", kind, "\"",
                   nearest.empty() ? "" : "; did you mean \"" + nearest + "\"?");
      }
    return "";
  }
  Ratio r;
  if (!parse(c.ratio, r)) return "";  // reported as the key's own problem
  if (r.linear > 0 && r.full > 0 && r.period() > c.num_hidden_layers)
    return cat("expected a ratio whose period fits num_hidden_layers (", c.num_hidden_layers,
               "), got \"", c.ratio, "\", which needs ", r.period());
  return "";
}

std::vector<std::string> layer_pattern(const LmConfig& c) {
  const std::string problem = pattern_problem(c);
  SLUICE_CHECK(problem.empty(), problem);
  if (!c.layers.empty()) return c.layers;
  Ratio r;
  SLUICE_CHECK(parse(c.ratio, r), "ratio is \"", c.ratio, "\"");
  std::vector<std::string> pattern;
  for (int64_t i = 0; i < c.num_hidden_layers; ++i)
    pattern.push_back(i % r.period() < r.linear ? c.linear : c.full);
  if (r.full > 0) pattern.back() = c.full;
  return pattern;
}

std::vector<std::pair<std::string, std::string>> unused_kda_keys(const LmConfig& c) {
  if (!pattern_problem(c).empty() || (c.layers.empty() && !is_ratio(c.ratio))) return {};
  const std::vector<std::string> layers = layer_pattern(c);
  const auto has = [&](const char* kind) {
    return std::find(layers.begin(), layers.end(), kind) != layers.end();
  };
  const bool scalar_gate = has("gdn") || has("mamba2");
  std::vector<std::pair<std::string, std::string>> found;
  if (scalar_gate && !has("kda") && c.kda.gate_lower_bound)
    found.push_back({"kda.gate_lower_bound", cat("expected null without a kda layer, got \"",
                                                 *c.kda.gate_lower_bound, "\"")});
  if (has("mamba2") && !has("kda") && !has("gdn") && c.kda.allow_neg_eigval)
    found.push_back(
        {"kda.allow_neg_eigval", "expected false without a kda or gdn layer, got \"true\""});
  return found;
}

}  // namespace sluice
