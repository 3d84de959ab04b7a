// model/export/published.h -- the names of published checkpoints (Moonshot's Kimi-Linear folders).
//
// They hold one matrix a tensor; ours are fused: rows of a weight (ParamSpec::row_blocks), experts
// in a stack. Every published tensor is a run of consecutive elements of one of our parameters, so
// that SafetensorsReader::read and write_slice need nothing but `first_element`.
#pragma once

#include <string>
#include <vector>

#include "model/autograd/param_store.h"

namespace sluice {

struct PublishedTensor {
  std::string name;            // "model.layers.3.self_attn.q_proj.weight"
  std::vector<int64_t> shape;  // as published: A_log [1, 1, H, 1], dt_bias [H*K], conv [H*K, 1, W]
  ParamId id;
  int64_t first_element = 0;  // of the parameter, row-major

  int64_t numel() const;
};

// Every tensor of a folder that holds this model, in the order of the parameters. Throws, naming
// the parameter, if there is one without a published name. Tied embeddings are one tensor here.
std::vector<PublishedTensor> published_tensors(const ParamStore& params);

}  // namespace sluice
