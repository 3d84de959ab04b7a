// trainer/loop/step.h -- one micro-batch, forward and backward: what is planned, run and checked.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "data/loader/loader.h"
#include "model/autograd/layer_probe.h"
#include "model/autograd/op_times.h"
#include "model/autograd/step_stats.h"
#include "model/lm/lm.h"

namespace sluice {

// A micro-batch's part of a step's loss, or their sum.
struct StepLoss {
  double cross_entropy = 0, z_loss = 0;
};

// A micro-batch, token by token, on the host. Valid until the runner's next call.
struct Scores {
  double nats = 0;                     // sum of nll
  std::span<const double> nll;         // [N] negative log likelihood of each target, in nats;
                                       // 0 where there is none
  std::span<const int32_t> predicted;  // [N] the likeliest target, the lowest id of equals
};

Recompute recompute_of(const std::string& name);  // train.recompute

class StepRunner {
 public:
  // `ctx` has no arena yet: plan() says how large it must be, and use() gives it.
  // Training counts into `stats`, if there are any.
  StepRunner(const Context& ctx, ParamStore& params, const Lm& lm, Recompute recompute,
             double z_loss, StepStats* stats = nullptr);

  // Bytes of arena that a training micro-batch of this shape takes, a validation pass or a probe.
  int64_t plan(const MicroBatch& shape);
  // That score() takes alone.
  int64_t plan_score(const MicroBatch& shape);
  void use(Arena& arena) { ctx_.arena = &arena; }
  void time_into(OpTimes* times) { times_ = times; }  // of training; null: nowhere

  // Adds the micro-batch's gradients to the store; returns its part of the loss: sums over its
  // valid tokens times loss_scale (1 / valid tokens of the global batch).
  StepLoss train(const MicroBatch& batch, double loss_scale);
  // Without gradients: what validation and every evaluation go through, so that their digits are
  // the same.
  Scores score(const MicroBatch& batch);
  // Sum of the negative log likelihoods of the micro-batch, in nats.
  double validate(const MicroBatch& batch) { return score(batch).nats; }
  // A forward pass for its figures alone: what each layer does, and `stats` as if it were trained.
  void probe(const MicroBatch& batch, LayerProbe& probe, StepStats& stats);
  // Runs the micro-batch again with every op checked: throws naming the first that is not finite.
  void report_nonfinite(const MicroBatch& batch, double loss_scale);

 private:
  enum class Check : uint8_t { none, finite };

  // Outputs of a pass that scores.
  struct TokenOutputs {
    Tensor nll;        // [N] as the activations
    Tensor predicted;  // [N] i32
  };
  StepLoss run(const Context& ctx, const MicroBatch& batch, double loss_scale, Tape::Mode mode,
               Recompute recompute, Check check, StepStats* stats = nullptr,
               const TokenOutputs& outputs = {}, LayerProbe* probe = nullptr);
  double score(const Context& ctx, const MicroBatch& batch);
  int64_t peak_of(const std::function<void(const Context&)>& pass) const;

  Context ctx_;
  ParamStore& params_;
  const Lm& lm_;
  Recompute recompute_;
  double z_loss_;
  StepStats* stats_;
  OpTimes* times_ = nullptr;
  Buffer loss_scale_, loss_terms_;
  std::vector<double> nll_;  // of the last score()
  std::vector<int32_t> predicted_;
};

}  // namespace sluice
