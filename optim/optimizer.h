// optim/optimizer.h -- AdamW, or Muon for matrices and AdamW for the rest, over the shards that a
// rank owns.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "kernels/adamw/adamw.h"
#include "kernels/device/pinned.h"
#include "kernels/tensor/buffer.h"
#include "kernels/tensor/context.h"
#include "kernels/tensor/step_state.h"
#include "model/autograd/param_store.h"
#include "optim/groups.h"
#include "optim/muon_plan.h"

namespace sluice {

class Optimizer {
 public:
  // Of a store that is only planned: has no moments either, but their bytes, and plans. `groups`
  // say how the shards lie over ranks, for Muon; none: on this one. `seed`: of the random bits that
  // round bf16 states.
  Optimizer(const OptimConfig& config, const ParamStore& params, ShardGroups groups = {},
            uint64_t seed = 0);

  // Sets grad_norm, grad_scale and skip of `state`. `sum_over_ranks` adds up a [1] f64 tensor over
  // the ranks; left out on one rank. Complete gradients (ParamStore::finish_gradients) are
  // expected.
  void clip(const Context& ctx, StepState* state,
            const std::function<void(const Tensor&)>& sum_over_ranks = {});
  // Changes masters and their rounded copies. With Muon over ranks all of them call it.
  void step(const Context& ctx, const StepState* state);

  struct Moments {
    std::string name;  // of the parameter
    Tensor m, v;       // [n]; no v for Muon's
    ParamId id;
    int64_t begin;  // of the shard's elements
  };
  std::vector<Moments> moments() const;                             // by shard: for checkpoints
  int64_t bytes() const { return offloads() ? 0 : state_bytes(); }  // of them on the device
  int64_t host_bytes() const { return offloads() ? state_bytes() : 0; }  // beside it
  static constexpr int64_t kSumBytes = sizeof(double);                   // its own beside them
  std::string table() const;  // which parameters are whose, with what settings: printed at start

 private:
  // In the device's memory or, with optim.offload: host, in pinned memory of the host, which the
  // kernels of the update read and write where it lies.
  struct State {
    Tensor t;  // [n]
    Buffer memory;
    PinnedBuffer host_memory;
  };
  struct Owned {
    Shard shard;  // one with a gradient
    ParamSettings settings;
    std::vector<MatrixRun> matrices;  // Muon's, if they are all here; else none
    State m, v;                       // no v for Muon's
    StateRounding rounding;
  };
  struct Distributed {  // Muon over the ranks of a group
    Comm* comm;         // null in a plan
    MuonPlan plan;
  };
  bool offloads() const { return config_.offload == "host"; }
  int64_t state_bytes() const;
  State zeros_like(const Tensor& master) const;
  void plan_distributed(const ShardGroup& group, bool experts);
  void muon_step(const Context& ctx, const Owned& o, const StepState* state) const;
  void muon_round(const Context& ctx, const Distributed& d, const MuonRound& round,
                  const StepState* state) const;

  OptimConfig config_;
  const ParamStore& params_;
  std::vector<Owned> owned_;
  std::vector<int> owned_of_;  // by ParamId::index: of owned_; -1: none
  std::vector<Distributed> distributed_;
  std::vector<AdamW> adamw_;
  std::vector<Tensor> grads_;
  Tensor sum_of_squares_;  // [1] f64
  Buffer sum_memory_;
};

}  // namespace sluice
