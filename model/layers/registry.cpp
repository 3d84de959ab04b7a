// model/layers/registry.cpp -- one line a layer kind.
#include "model/layers/registry.h"

#include "model/layers/gated_mlp.h"
#include "model/layers/gdn_layer.h"
#include "model/layers/identity_layer.h"
#include "model/layers/kda_layer.h"
#include "model/layers/mla_layer.h"
#include "model/layers/moe.h"

namespace sluice {

template <class Base>
struct Kind {
  const char* name;
  std::unique_ptr<Base> (*make)(const ParamScope&, const LayerConfig&);
};

template <class Base, class Layer>
static std::unique_ptr<Base> make(const ParamScope& scope, const LayerConfig& config) {
  return std::make_unique<Layer>(scope, config);
}

template <bool delta_rule>
static std::unique_ptr<Mixer> make_gdn(const ParamScope& scope, const LayerConfig& config) {
  return std::make_unique<GdnLayer>(scope, config, delta_rule);
}

constexpr Kind<Mixer> kMixers[] = {
    {"kda", make<Mixer, KdaLayer>},
    {"gdn", make_gdn<true>},
    {"mamba2", make_gdn<false>},
    {"mla", make<Mixer, MlaLayer>},
    {"identity", make<Mixer, IdentityLayer>},
};
constexpr Kind<Ffn> kFfns[] = {
    {"dense", make<Ffn, GatedMlp>},
    {"moe", make<Ffn, Moe>},
};

template <class Kinds>
static std::vector<std::string> names(const Kinds& kinds) {
  std::vector<std::string> list;
  for (const auto& k : kinds) list.push_back(k.name);
  return list;
}

template <class Kinds>
static auto find(const Kinds& kinds, const std::string& name, const ParamScope& scope,
                 const LayerConfig& config) {
  for (const auto& k : kinds)
    if (name == k.name) return k.make(scope, config);
  std::string known;
  for (const std::string& k : names(kinds)) known += (known.empty() ? "" : ", ") + k;
  throw Error(cat(scope.prefix, ": no layer kind \"", name, "\"; there are ", known));
}

std::unique_ptr<Mixer> make_mixer(const std::string& kind, const ParamScope& scope,
                                  const LayerConfig& config) {
  return find(kMixers, kind, scope, config);
}
std::unique_ptr<Ffn> make_ffn(const std::string& kind, const ParamScope& scope,
                              const LayerConfig& config) {
  return find(kFfns, kind, scope, config);
}
std::vector<std::string> mixer_kinds() {
  return names(kMixers);
}
std::vector<std::string> ffn_kinds() {
  return names(kFfns);
}

}  // namespace sluice
