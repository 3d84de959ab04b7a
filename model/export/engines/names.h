// model/export/engines/names.h -- our parameters under the names that other engines read.
//
// They hold one matrix a tensor; ours are fused: rows of a weight (ParamSpec::row_blocks), experts
// in a stack. So a tensor of theirs is a run of consecutive elements of one of our parameters, or
// is made from one (Content).
#pragma once

#include <string>
#include <vector>

#include "model/autograd/param_store.h"
#include "model/export/safetensors.h"

namespace sluice {

enum class Naming {
  moonshot,  // kimi_linear: the published Kimi-Linear folders. gdn layers become KDA layers
  deepseek,  // deepseek_v3: as moonshot, but for experts
  fla,       // flash-linear-attention's `kda`
};

// What a tensor holds beside elements of a parameter. A scalar gate is KDA's with f_b_proj
// selecting, for every channel of head h, row h of f_a_proj, and one dt_bias a head: the same
// numbers.
enum class Content {
  copied,
  padded,    // then zeros; from nothing: all zeros
  repeated,  // every element, one a head, for each of its channels
  selector,  // [H*K, K] of 0 and 1: 1 in column h of the rows of head h. Of no parameter
};

struct EngineTensor {
  std::string name;  // "model.layers.3.self_attn.q_proj.weight"
  std::vector<int64_t>
      shape;  // as they have it: A_log [1, 1, H, 1], dt_bias [H*K], conv [H*K, 1, W]
  ParamId id;
  int64_t first_element = 0;  // of the parameter, row-major
  int64_t count = 0;          // elements of the parameter in it
  Content content = Content::copied;

  int64_t numel() const;
};

// Every tensor of a folder that holds this model, in the order of the parameters. Throws, naming
// the parameter, if there is one that has no name there. Tied embeddings are one tensor here.
std::vector<EngineTensor> engine_tensors(const ParamStore& params, Naming naming);

// Elements first ... first + count of the tensor, f32, from a checkpoint's weights; out [count].
void read_values(const TensorSource& weights, const ParamStore& params, const EngineTensor& t,
                 int64_t first, int64_t count, float* out);

}  // namespace sluice
