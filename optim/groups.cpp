// optim/groups.cpp -- globs by fnmatch(3): * and ? match any character, dots too.
#include "optim/groups.h"

#include <fnmatch.h>

#include "kernels/base/check.h"
#include "kernels/base/nearest.h"

namespace sluice {

static std::string no_match(const GroupRule& rule, size_t index, const ParamStore& params) {
  std::vector<std::string> names;
  for (int i = 0; i < params.size(); ++i)
    if (params.spec({i}).rule == UpdateRule::gradient) names.push_back(params.spec({i}).name);
  const std::string near = nearest_name(names, rule.match);
  std::string text = cat("optim.groups[", index, "].match: \"", rule.match,
                         "\" matches none of the ", names.size(), " parameters; ");
  if (!near.empty()) return text + "did you mean \"" + near + "\"?";
  return text + cat("names are like \"", names.front(), "\" and \"", names.back(), "\"");
}

std::vector<ParamSettings> param_settings(const OptimConfig& config, const ParamStore& params) {
  for (size_t r = 0; r < config.groups.size(); ++r) {  // of the model, not of this rank's shards
    bool matched = false;
    for (int i = 0; i < params.size() && !matched; ++i)
      matched = params.spec({i}).rule == UpdateRule::gradient &&
                fnmatch(config.groups[r].match.c_str(), params.spec({i}).name.c_str(), 0) == 0;
    if (!matched) throw Error(no_match(config.groups[r], r, params));
  }
  const bool muon = config.kind == "muon";
  bool matrices = false;  // of the model, too
  for (int i = 0; i < params.size(); ++i) matrices = matrices || params.spec({i}).matrix;
  SLUICE_CHECK(!muon || matrices, "optim.kind is muon, but the model has no matrix for it");
  std::vector<ParamSettings> settings;
  for (const Shard& s : params.trained_shards())
    settings.push_back(settings_of(config, params.spec(s.id)));
  return settings;
}

ParamSettings settings_of(const OptimConfig& config, const ParamSpec& spec) {
  ParamSettings p;
  if (config.kind == "muon" && spec.matrix) p.owner = Owner::muon;
  p.weight_decay = spec.weight_decay ? config.weight_decay : 0;
  for (size_t r = 0; r < config.groups.size(); ++r) {
    const GroupRule& rule = config.groups[r];
    if (fnmatch(rule.match.c_str(), spec.name.c_str(), 0) != 0) continue;
    if (rule.weight_decay) p.weight_decay = *rule.weight_decay;
    p.lr_scale = rule.lr_scale;
    p.rule = int(r);
  }
  return p;
}

}  // namespace sluice
