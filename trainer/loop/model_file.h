// trainer/loop/model_file.h -- a model from a checkpoint, for everything but training.
#pragma once

#include <memory>

#include "model/autograd/plain_store.h"
#include "model/lm/lm.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/loop/config.h"

namespace sluice {

struct LoadedModel {
  CheckpointRef checkpoint;
  Config config;
  std::unique_ptr<PlainStore> params;
  std::unique_ptr<Lm> lm;
};

// `path` is a run's folder (its newest valid checkpoint) or one checkpoint's folder.
CheckpointRef find_checkpoint(const std::string& path);
LoadedModel load_model(const std::string& path);

// The weights as a checkpoint names them.
std::vector<NamedTensor> named_weights(ParamStore& params);

}  // namespace sluice
