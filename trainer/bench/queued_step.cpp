// trainer/bench/queued_step.cpp -- steps with and without graphs, and op by op.
#include "trainer/bench/queued_step.h"

#include "kernels/step_control/step_control.h"
#include "trainer/loop/measure.h"

namespace sluice {

void QueuedStep::forward_backward() {
  const TrainSettings& t = config_.train;
  runner_.begin_step(state_.at(), 1e-4F);
  for (int64_t m = 0; m < t.batch_tokens / t.micro_batch_tokens; ++m)
    runner_.train(batch_, 1 / double(t.batch_tokens));
}

void QueuedStep::update(StepRunner::Graphs graphs) {
  const auto all = [&] {
    params_.finish_gradients(ctx_);
    optimizer_.clip(ctx_, state_.at());
    decide(ctx_, state_.at());
    optimizer_.step(ctx_, state_.at());
  };
  const bool replay = graphs == StepRunner::Graphs::on && ctx_.device == Device::cuda;
  if (replay && updates_ > 0 && !graph_) graph_.capture(ctx_, all);
  replay&& graph_ ? graph_.launch(ctx_) : all();
  ++updates_;
}

// `repeats` steps, each queued while the one before runs, as in training: seconds from the end of
// one to the end of the next. `queue` is what the host needed for it.
static void measure_queued(const Context& ctx, int64_t repeats, StepRunner::Graphs graphs,
                           StepRunner& runner, QueuedStep& step, std::vector<double>& seconds,
                           std::vector<double>& queue) {
  constexpr int64_t kWarm = 3;
  runner.use_graphs(graphs);
  Event done(ctx.device);
  double last = 0;
  for (int64_t i = 0; i < kWarm + repeats; ++i) {
    const double begin = monotonic_seconds();
    step.forward_backward();
    double queued = monotonic_seconds() - begin;
    done.wait();  // for the step before
    const double now = monotonic_seconds();
    if (i > kWarm) seconds.push_back(now - last);
    last = now;
    step.update(graphs);
    done.record(ctx);
    queued += monotonic_seconds() - now;
    if (i >= kWarm) queue.push_back(queued);
  }
  done.wait();
  seconds.push_back(monotonic_seconds() - last);
}

// On CUDA `seconds` are of steps that note nothing, the times by op of as many others.
void measure_steps(const Context& ctx, int64_t repeats, StepRunner& runner, QueuedStep& step,
                   Measured& out) {
  if (ctx.device == Device::cuda) {
    measure_queued(ctx, repeats, StepRunner::Graphs::off, runner, step, out.eager, out.eager_queue);
    measure_queued(ctx, repeats, StepRunner::Graphs::on, runner, step, out.seconds, out.queue);
  }
  for (int64_t i = 0; i <= repeats; ++i) {
    if (i == 1) runner.time_into(&out.times);  // the first only warms up
    const double begin = monotonic_seconds();
    step.forward_backward();
    step.update(StepRunner::Graphs::off);
    if (i > 0) out.times.forward_done("optimizer");
    step.wait();
    if (i > 0 && ctx.device == Device::cpu) out.seconds.push_back(monotonic_seconds() - begin);
  }
}

}  // namespace sluice
