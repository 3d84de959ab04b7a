// trainer/loop/inspect_files.h -- what is in a file or folder of other engines.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "trainer/loop/inspect.h"

namespace sluice {

// A .gguf or .safetensors file, or a Hugging Face folder (it has a config.json).
bool is_of_engines(const std::string& path);

// {"path", "files": {"kind", "state", "problems", "bytes", "elements", "facts": {key: value},
//  "tensors": [{"name", "type", "file", "nonfinite", "norm", "min", "max"}]}}. Facts are a GGUF
// file's keys, a folder's config.json and generation_config.json, a safetensors file's metadata. Of
// a type that is not read here, values are null. Of a broken one, whatever can be read is there.
nlohmann::ordered_json inspect_files(const std::string& path, const InspectOptions& options);

}  // namespace sluice
