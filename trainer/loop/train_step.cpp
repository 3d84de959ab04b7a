// trainer/loop/train_step.cpp -- a step: queued, decided, and settled when its numbers are there.
#include <cmath>
#include <utility>

#include "kernels/base/trace.h"
#include "kernels/step_control/step_control.h"
#include "optim/expert_bias.h"
#include "optim/qk_clip.h"
#include "trainer/loop/trainer.h"

namespace sluice {

void Trainer::train_step() {
  forward_backward();
  update();
  settle();
}

void Trainer::without_graphs() {
  graphs_ = false;
  runner_->use_graphs(StepRunner::Graphs::off);
}

// Queues gradients and losses of the step; it may be done again.
void Trainer::forward_backward() {
  OpenPart& part = part_of(step_);
  const double waited_ms = part.batches->waited_ms();
  runner_->begin_step(state_.at(), float(lr_after(schedule_, step_)), signals_.received());
  for (int64_t m = 0; m < part.loader->micro_batches(); ++m) {
    const MicroBatch& batch = part.batches->get(step_ - part.is.begin, m);
    runner_->train(batch, 1.0 / double(batch.step_valid_tokens));
  }
  data_wait_ms_ = part.batches->waited_ms() - waited_ms;
}

// Queues what the gradients change. On a GPU the decision not to is made there, and judge() hears
// of it a step late; only a rule that needs the host waits for it.
void Trainer::update() {
  const ProfileRange range("update");
  const TraceScope scope("update", TraceRow::phases);
  const bool waits = ctx_.device == Device::cpu || config_.train.spike.skip;
  Outcome outcome{.step = step_, .data_wait_ms = data_wait_ms_};
  const auto complete = [&] {
    sum_over_ranks();
    params_->finish_gradients(ctx_);
    optimizer_->clip(ctx_, state_.at(), norm_over_ranks());
  };
  if (waits) {
    complete();
    outcome.state = state_.take();
    judge(outcome);
    state_.put(outcome.state);
    change_model();
  } else {
    const auto all = [&] {
      complete();
      change_model();
    };
    if (graphs_ && changed_before_ && !change_) change_.capture(ctx_, all);
    change_ ? change_.launch(ctx_) : all();
    changed_before_ = true;
  }
  results_->queued(ctx_);
  pending_ = std::move(outcome);
  ++step_;
}

void Trainer::change_model() {
  decide(ctx_, state_.at());
  optimizer_->step(ctx_, state_.at());
  if (const auto threshold = config_.optim.qk_clip_threshold)
    qk_clip(ctx_, *params_, *stats_, *threshold, state_.at());
  update_expert_bias(ctx_, *params_, *stats_, config_.model.moe.bias_update_rate, state_.at());
  results_->copy_from(ctx_, state_, *stats_);
}

// Waits for the step that is queued, if there is one, and reports it.
Trainer::Gradients Trainer::settle() {
  if (!pending_) return Gradients::kept;
  results_->wait();
  Outcome outcome = *std::exchange(pending_, std::nullopt);
  outcome.state = results_->state();
  updates_ = outcome.state.step;
  last_loss_ = outcome.state.cross_entropy;
  const Gradients gradients = outcome.judged ? Gradients::kept : judge(outcome);
  report(outcome);
  return gradients;
}

bool Trainer::ended_by_nonfinite() const {
  const NonfiniteConfig& c = config_.train.nonfinite;
  return nonfinite_ > 0 && (!c.skip || nonfinite_ >= c.stop_after);
}

// Says what the step did or, if nothing has been changed yet, whether it may change anything.
Trainer::Gradients Trainer::judge(Outcome& o) {
  const double loss = o.state.cross_entropy;
  o.judged = true;
  o.spike = spikes_.judge(loss, o.state.grad_norm);
  if (o.state.skip || !std::isfinite(loss + o.state.z_loss)) {
    o.state.skip = 1;
    ++nonfinite_;
    nonfinite_where_ = find_nonfinite(o.step);
    o.skipped = "not finite: " + nonfinite_where_;
    return Gradients::lost;
  }
  nonfinite_ = 0;
  if (config_.train.spike.skip && !o.spike.empty()) {
    o.state.skip = 1;
    o.skipped = "spike: " + o.spike;
  }
  return Gradients::kept;
}

// The step is lost anyway: run it once more, op by op, to say which one made the first bad number.
std::string Trainer::find_nonfinite(int64_t step) {
  OpenPart& part = part_of(step);
  for (int64_t m = 0; m < part.loader->micro_batches(); ++m) {
    const MicroBatch& batch = part.batches->get(step - part.is.begin, m);
    const std::string what =
        first_of_ranks(runner_->find_nonfinite(batch, 1.0 / double(batch.step_valid_tokens)));
    if (!what.empty()) return cat("micro-batch ", m, ": ", what);
  }
  return "every op's result is finite, the gradients' norm or the sum of the losses is not";
}

}  // namespace sluice
