// trainer/export/import.h -- public weights as a checkpoint of ours, to go on from.
#pragma once

#include <string>

namespace sluice {

struct Imported {
  std::string checkpoint;  // OUT/checkpoints/step-00000000
  std::string model;       // its `model:` section, as YAML
  int64_t parameters = 0;
  bool tokenizer = false;  // OUT/tokenizer.json
};

// Makes the run folder `out`, which must not be there, from a Hugging Face folder: run.init.from
// takes its weights. Every name, shape and type is checked before anything is written.
Imported import_folder(const std::string& folder, const std::string& out);

}  // namespace sluice
