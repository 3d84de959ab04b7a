// model/export/engines/gguf_model.h -- our weights as llama.cpp's GGUF files have them.
//
// The file is what llama.cpp's own converter makes of the Hugging Face folder of the same model:
// experts of a layer are one stack, kv_b_proj is two tensors by head (attention is served
// absorbed), A_log is -exp(A_log), convolutions and A have the rank 4 that its loader looks for.
// f32 stay: norms and all that is no matrix, routers, convolutions.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "model/export/engines/hf_config.h"
#include "model/export/engines/names.h"
#include "model/export/gguf.h"

namespace sluice {

// A tensor of the file and what it is made of, in order: one tensor of a folder, or the experts'.
struct GgufSource {
  enum class Change : uint8_t {
    none,
    minus_exp,    // -exp(x)
    keys,         // [H, K + V, R] -> [H, R, K]: each head's first K rows, transposed
    value_heads,  // [H, K + V, R] -> [H, V, R]: each head's last V rows
  };

  GgufTensor tensor;
  std::vector<EngineTensor> parts;
  Change change = Change::none;
};

// Kimi Linear's and DeepSeek's (MLA alone) architectures; `tensors` are engine_tensors() of
// moonshot or deepseek naming. Throws with every reason why the type cannot hold one.
std::vector<GgufSource> gguf_tensors(const LmConfig& model,
                                     const std::vector<EngineTensor>& tensors, GgufType type);

// Keys that are no vocabulary's. `name` is for people.
GgufKeys gguf_model_keys(const LmConfig& model, Architecture a, const TextFacts& text,
                         GgufType type, const std::string& name);

// Holds some MiB, or one head's matrix. `progress(bytes done, of all)`.
void write_gguf_tensors(GgufWriter& out, const TensorSource& weights, const ParamStore& params,
                        const std::vector<GgufSource>& sources,
                        const std::function<void(int64_t, int64_t)>& progress);

}  // namespace sluice
