// model/layers/scope.h -- where a layer registers its parameters.
#pragma once

#include <string>
#include <utility>

#include "model/autograd/param_store.h"

namespace sluice {

struct ParamScope {
  ParamStore& params;
  int group;                        // the block that holds the layer
  std::string prefix;               // "layers.3.mixer"
  double initializer_range = 0.02;  // standard deviation of projections

  ParamId add(const std::string& name, std::vector<int64_t> shape, Init init,
              std::vector<RowBlock> row_blocks = {}) const {
    return params.add({.name = prefix + "." + name,
                       .shape = std::move(shape),
                       .init = init,
                       .group = group,
                       .weight_decay = true,
                       .expert = false,
                       .row_blocks = std::move(row_blocks)});
  }
  // A projection [out, in], normal with the model's initializer_range.
  ParamId matrix(const std::string& name, int64_t out, int64_t in,
                 std::vector<RowBlock> row_blocks = {}) const {
    return params.add({.name = prefix + "." + name,
                       .shape = {out, in},
                       .init = {Init::Kind::normal, initializer_range, 0},
                       .group = group,
                       .weight_decay = true,
                       .expert = false,
                       .row_blocks = std::move(row_blocks),
                       .matrix = true});
  }
  // One [heads * rows, in] of an attention, of whose heads `heads` says which rows make logits.
  ParamId head_matrix(const std::string& name, const HeadRows& heads, int64_t rows,
                      int64_t in) const {
    return params.add({.name = prefix + "." + name,
                       .shape = {heads.count * rows, in},
                       .init = {Init::Kind::normal, initializer_range, 0},
                       .group = group,
                       .weight_decay = true,
                       .expert = false,
                       .row_blocks = {},
                       .matrix = true,
                       .heads = heads});
  }
  // Norm weights and per-head constants: never decayed.
  ParamId undecayed(const std::string& name, std::vector<int64_t> shape, Init init) const {
    return params.add({.name = prefix + "." + name,
                       .shape = std::move(shape),
                       .init = init,
                       .group = group,
                       .weight_decay = false,
                       .expert = false,
                       .row_blocks = {},
                       .wide = true});
  }
  // The same projection [out, in] of each of E experts: [E, out, in].
  ParamId expert_matrices(const std::string& name, int64_t E, int64_t out, int64_t in,
                          std::vector<RowBlock> row_blocks = {}) const {
    return params.add({.name = prefix + "." + name,
                       .shape = {E, out, in},
                       .init = {Init::Kind::normal, initializer_range, 0},
                       .group = group,
                       .weight_decay = true,
                       .expert = true,
                       .row_blocks = std::move(row_blocks),
                       .matrix = true});
  }
  // A router's selection bias [E]: moved by the load of the experts, not by a gradient.
  ParamId expert_bias(const std::string& name, int64_t E) const {
    return params.add({.name = prefix + "." + name,
                       .shape = {E},
                       .init = {Init::Kind::constant, 0, 0},
                       .group = group,
                       .weight_decay = false,
                       .expert = false,
                       .row_blocks = {},
                       .rule = UpdateRule::expert_load,
                       .wide = true});
  }
  ParamId norm_weight(const std::string& name, int64_t C) const {
    return undecayed(name, {C}, {Init::Kind::constant, 1, 0});
  }
  ParamScope sub(const std::string& name) const {
    return {params, group, prefix + "." + name, initializer_range};
  }
};

}  // namespace sluice
