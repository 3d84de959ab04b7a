// trainer/loop/model_file.h -- a model from a checkpoint, for everything but training.
#pragma once

#include <memory>
#include <optional>

#include "model/autograd/plain_store.h"
#include "model/lm/lm.h"
#include "optim/optimizer.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/loop/config.h"

namespace sluice {

struct LoadedModel {
  CheckpointRef checkpoint;
  std::vector<std::string> skipped;  // what is wrong with newer ones: to be shown
  Config config;
  std::unique_ptr<PlainStore> params;
  std::unique_ptr<Lm> lm;
};

// `path` as find_checkpoint() takes it: a run's folder, one checkpoint's, or
// .../checkpoints/latest. On CUDA the store is to be refreshed before it is used. The device may be
// left to the config that is in the checkpoint.
LoadedModel load_model(const std::string& path, std::optional<Device> device = Device::cpu);

// The weights and moments of this rank's shards, as a checkpoint names them.
std::vector<NamedTensor> named_weights(const ParamStore& params);
std::vector<NamedTensor> named_moments(const ParamStore& params, const Optimizer& optimizer);

}  // namespace sluice
