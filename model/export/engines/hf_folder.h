// model/export/engines/hf_folder.h -- weights as a Hugging Face folder has them.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "model/export/engines/names.h"

namespace sluice {

struct HfWeights {
  DType dtype = DType::bf16;  // or f32; constants of the gates and the router's bias are f32
  int64_t max_shard_bytes = int64_t(5)
                            << 30;  // of a file; a tensor that is larger has one of its own
};

DType dtype_in_folder(const EngineTensor& t, DType dtype);

// model.safetensors, or model-00001-of-0000N.safetensors and their index, into a folder that is
// there. Holds 24 MiB of a tensor at a time. `progress(bytes done, of all)`.
void write_hf_weights(const std::string& folder, const TensorSource& weights,
                      const ParamStore& params, const std::vector<EngineTensor>& tensors,
                      const HfWeights& options,
                      const std::function<void(int64_t, int64_t)>& progress);

}  // namespace sluice
