// trainer/loop/step.h -- one micro-batch, forward and backward: what is planned, run and checked.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "data/loader/loader.h"
#include "kernels/device/graph.h"
#include "kernels/tensor/step_state.h"
#include "model/autograd/layer_probe.h"
#include "model/autograd/op_times.h"
#include "model/autograd/step_stats.h"
#include "model/lm/lm.h"
#include "trainer/loop/batch_inputs.h"
#include "trainer/loop/context_inputs.h"

namespace sluice {

// A micro-batch, token by token, on the host. Valid until the runner's next call.
struct Scores {
  double nats = 0;                     // sum of nll
  std::span<const double> nll;         // [N] negative log likelihood of each target, in nats;
                                       // 0 where there is none
  std::span<const int32_t> predicted;  // [N] the likeliest target, the lowest id of equals
};

Recompute recompute_of(const std::string& name);  // train.recompute

struct PlannedPeak {
  int64_t bytes = 0;  // of arena
  std::array<int64_t, kPurposes> by_purpose{};
};

class StepRunner {
 public:
  static constexpr int64_t kLossBytes = 2 * sizeof(double);  // its own on the device

  // `ctx` has no arena yet: plan() says how large it must be, and use() gives it.
  // Training counts into `stats`, if there are any.
  StepRunner(const Context& ctx, ParamStore& params, const Lm& lm, Recompute recompute,
             double z_loss, StepStats* stats = nullptr);

  // From now on this rank works on its piece of every micro-batch, all ranks of the group on
  // theirs.
  void cut_over(Comm& context);

  // What a training micro-batch of this shape takes, a validation pass or a probe: the largest.
  PlannedPeak plan_peak(const MicroBatch& shape);
  int64_t plan(const MicroBatch& shape) { return plan_peak(shape).bytes; }
  // That score() takes alone.
  PlannedPeak plan_score_peak(const MicroBatch& shape);
  int64_t plan_score(const MicroBatch& shape) { return plan_score_peak(shape).bytes; }
  int64_t input_bytes() const { return inputs_.bytes(); }  // beside it, of the planned shapes
  void use(Arena& arena);
  enum class Graphs : uint8_t { off, on };
  // On CUDA the passes of a step are captured the second time that they run, and replayed from then
  // on, unless times are asked for.
  void use_graphs(Graphs g) { graphs_on_ = g == Graphs::on && ctx_.device == Device::cuda; }
  void time_into(OpTimes* times) { times_ = times; }  // of training; null: nowhere

  // Forgets gradients and statistics; `state` is the device's. Beginning a step again is right.
  void begin_step(StepState* state, float lr, int32_t stop = 0);
  // Adds the micro-batch's gradients to the store, and to the step's state its part of the loss:
  // sums over its valid tokens times loss_scale (1 / valid tokens of the global batch). An empty
  // one (a rank had no rows left) counts in no statistic. Waits for nothing that it queues.
  void train(const MicroBatch& batch, double loss_scale);
  // Without gradients: what validation and every evaluation go through, so that their digits are
  // the same.
  Scores score(const MicroBatch& batch);
  // Sum of the negative log likelihoods of the micro-batch, in nats.
  double validate(const MicroBatch& batch) { return score(batch).nats; }
  // A forward pass for its figures alone: what each layer does, and `stats` as if it were trained.
  void probe(const MicroBatch& batch, LayerProbe& probe, StepStats& stats);
  // Runs the micro-batch again, looking at the results of every op. The step's gradients are lost:
  // begin it again.
  NonfiniteFinding find_nonfinite(const MicroBatch& batch, double loss_scale);

 private:
  // Outputs of a pass that scores.
  struct TokenOutputs {
    Tensor nll;        // [N] as the activations
    Tensor predicted;  // [N] i32
  };
  // What looks into a pass.
  struct Watch {
    StepStats* stats = nullptr;
    LayerProbe* probe = nullptr;
    NonfiniteFinding* nonfinite = nullptr;
  };
  void run(const Context& ctx, const BatchInputs::View& batch, Tape::Mode mode, Recompute recompute,
           const Watch& watch, const TokenOutputs& outputs = {});
  BatchInputs::View planned(const MicroBatch& shape);
  BatchInputs::View put(const MicroBatch& batch, double loss_scale);
  PlannedPeak with_gaps(PlannedPeak peak) const;
  void train_pass(const BatchInputs::View& batch, StepStats* stats);
  double score(const Context& ctx, const BatchInputs::View& batch);
  PlannedPeak peak_of(const std::function<void(const Context&)>& pass) const;

  Context ctx_;
  ParamStore& params_;
  const Lm& lm_;
  Recompute recompute_;
  double z_loss_;
  StepStats* stats_;
  OpTimes* times_ = nullptr;
  BatchInputs inputs_;
  std::optional<ContextInputs> context_;  // none: this rank has whole micro-batches
  Buffer loss_terms_;
  StepState* state_ = nullptr;
  int64_t micro_batch_ = 0;  // of the step
  bool graphs_on_ = false;
  struct Replay {
    bool ran = false;
    Graph graph;
  };
  struct Kind {  // of a pass: the first micro-batch writes gradients, later ones add
    int64_t tokens, documents, longest;
    bool first, empty;
    auto operator<=>(const Kind&) const = default;
  };
  std::map<Kind, Replay> replays_;
  std::vector<double> nll_;  // of the last score()
  std::vector<int32_t> predicted_;
};

}  // namespace sluice
