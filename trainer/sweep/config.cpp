// trainer/sweep/config.cpp -- what must hold across keys.
#include "trainer/sweep/config.h"

#include <algorithm>

#include "kernels/base/check.h"

namespace sluice {

static const char* const kColumns[] = {"parameters",
                                       "active_parameters",
                                       "flops_per_token",
                                       "train_ppl",
                                       "valid_ppl",
                                       "accuracy",
                                       "tokens_per_second",
                                       "kv_bytes_per_token_128k",
                                       "kv_bytes_per_token_1m",
                                       "decode_ms"};

bool are_columns(const std::vector<std::string>& names) {
  return !names.empty() && std::all_of(names.begin(), names.end(), [](const std::string& n) {
    return std::find(std::begin(kColumns), std::end(kColumns), n) != std::end(kColumns);
  });
}

std::string column_names() {
  std::string all;
  for (const char* n : kColumns) all += cat(all.empty() ? "" : ", ", n);
  return all;
}

std::vector<std::pair<std::string, std::string>> SweepConfig::problems() const {
  std::vector<std::pair<std::string, std::string>> found;
  if (base.empty()) found.push_back({"base", "expected a config's file, which is missing"});
  const auto has = [&](const std::string& name) {
    return std::any_of(variants.begin(), variants.end(),
                       [&](const SweepVariant& v) { return v.name == name; });
  };
  const auto named = [&](const std::string& key, const std::optional<std::string>& name) {
    if (name && !has(*name))
      found.push_back({key, cat("expected the name of a variant, got \"", *name, "\"")});
  };
  named("baseline", baseline);
  if (match) named("match.to", match->to);
  for (const auto& [key, list] : {std::pair{"variants", &variants}, {"ladder", &ladder}})
    for (size_t i = 0; i < list->size(); ++i)
      for (size_t j = 0; j < i; ++j)
        if ((*list)[i].name == (*list)[j].name)
          found.push_back(
              {key, cat("[", i, "] and [", j, "] have the name \"", (*list)[i].name, "\"")});
  return found;
}

}  // namespace sluice
