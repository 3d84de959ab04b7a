// model/layers/registry.h -- the layer kinds by the name that a config gives them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "model/layers/config.h"
#include "model/layers/layer.h"

namespace sluice {

// Throws for an unknown kind, listing the known ones. Parameters are registered in the scope.
std::unique_ptr<Mixer> make_mixer(const std::string& kind, const ParamScope& scope,
                                  const LayerConfig& config);
std::unique_ptr<Ffn> make_ffn(const std::string& kind, const ParamScope& scope,
                              const LayerConfig& config);

std::vector<std::string> mixer_kinds();
std::vector<std::string> ffn_kinds();

}  // namespace sluice
