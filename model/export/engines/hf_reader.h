// model/export/engines/hf_reader.h -- a Hugging Face folder read: its model section and its
// weights.
#pragma once

#include <string>
#include <vector>

#include "model/export/engines/hf_config.h"
#include "model/export/engines/names.h"

namespace sluice {

struct HfModel {
  LmConfig model;
  Naming naming = Naming::moonshot;
  int64_t context_tokens = 0;
};

// Reads FOLDER/config.json. Throws, naming the key, for an architecture that we have not and for
// every value that would make it compute something else than our layers do.
HfModel read_hf_config(const std::string& folder);

// model.safetensors, or the files of model.safetensors.index.json.
class HfWeightFiles {
 public:
  explicit HfWeightFiles(const std::string& folder);

  // Throws with every tensor that is missing, of another shape, or of no parameter of ours. Files
  // that transformers saved name dense layers' FFN as if they had experts: both spellings are
  // taken.
  void check(const std::vector<EngineTensor>& expected);
  // f32 or bf16 in the file; out [numel] f32.
  void read(const EngineTensor& t, float* out) const;

 private:
  struct Place {
    size_t file;
    const SafetensorsEntry* entry;
  };
  const Place* find(const std::string& name) const;

  std::string folder_;
  std::vector<SafetensorsReader> files_;
  std::map<std::string, Place> tensors_;
};

}  // namespace sluice
