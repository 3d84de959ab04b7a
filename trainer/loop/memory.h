// trainer/loop/memory.h -- the bytes that a run takes on its device, by purpose, before it takes
// them.
#pragma once

#include <memory>
#include <string>

#include "model/autograd/plain_store.h"
#include "optim/optimizer.h"
#include "trainer/loop/config.h"
#include "trainer/loop/step.h"
#include "trainer/parallel/mesh.h"

namespace sluice {

struct MemoryPlan {
  StoreBytes params{};
  int64_t moments = 0;
  int64_t host_moments = 0;  // in pinned memory of the host, with optim.offload: not in total()
  int64_t inputs = 0;        // micro-batches; 0 where the loader's are read
  int64_t control = 0;       // step state, statistics, sums
  int64_t step = 0;          // the arena: what a step, a validation or a probe takes
  std::array<int64_t, kPurposes> at_peak{};  // of it, when it is largest; the rest are gaps

  int64_t total() const { return params.total() + moments + inputs + control + step; }
};

// Shapes of micro-batches that a run trains on, and validates on.
struct PlannedShapes {
  std::vector<MicroBatchBuffer> train, score;
};

// The store of this rank: PlainStore if there is one rank, else ShardedStore.
std::unique_ptr<ParamStore> make_store(const ParallelConfig& parallel, const LmConfig& model,
                                       const Mesh& mesh, Device device);

// Plans passes and updates; nothing of it touches the device.
MemoryPlan plan_memory(const Context& ctx, const ParamStore& params, const StepStats& stats,
                       StepRunner& runner, Optimizer& optimizer, PlannedShapes shapes);

// The same from a config: what Trainer would take. Reads what says how many documents a row may
// have and how many words there are; without data.train and data.task, a row is one document.
MemoryPlan plan_memory(const Config& config);
MemoryPlan plan_memory(const Config& config, const Mesh& mesh);  // of one rank of several

// A line a purpose. `device` in words.
std::string to_string(const MemoryPlan& plan, const std::string& device);

// Sets model.vocab_size, if it is left out. Returns the tokenizer's fingerprint, of a task nothing.
std::string open_vocabulary(Config& config);

}  // namespace sluice
