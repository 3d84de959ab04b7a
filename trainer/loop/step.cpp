// trainer/loop/step.cpp -- a tape from tokens to gradients.
#include "trainer/loop/step.h"

#include <algorithm>

#include "kernels/tensor/fill.h"

namespace sluice {

StepRunner::StepRunner(const Context& ctx, ParamStore& params, const Lm& lm, Recompute recompute,
                       double z_loss, StepStats* stats)
    : ctx_(ctx),
      params_(params),
      lm_(lm),
      recompute_(recompute),
      z_loss_(z_loss),
      stats_(stats),
      loss_scale_(DType::f64, {1}, ctx.device),
      loss_terms_(DType::f64, {2}, ctx.device) {}

StepLoss StepRunner::run(const Context& ctx, const MicroBatch& batch, double loss_scale,
                         Tape::Mode mode, Recompute recompute, Check check, StepStats* stats) {
  set_scalar(ctx, loss_scale_.view(), loss_scale);
  Tape tape(ctx, params_, mode);
  tape.count_into(stats);
  if (mode == Tape::Mode::train && ctx.mode != Mode::plan) tape.time_into(times_);
  if (check == Check::finite) tape.report_nonfinite();
  const Var loss = lm_.loss(tape,
                            {.tokens = batch.tokens,
                             .targets = batch.targets,
                             .loss_scale = loss_scale_.view(),
                             .sequences = {batch.cu_seqlens, {}},
                             .z_loss = z_loss_,
                             .loss_terms = loss_terms_.view()},
                            recompute);
  if (mode == Tape::Mode::train) tape.backward(loss);
  if (ctx.mode == Mode::plan) return {};
  return {loss_terms_.view().as<double>()[0], loss_terms_.view().as<double>()[1]};
}

int64_t StepRunner::plan(const MicroBatch& shape) {
  Arena arena = Arena::plan(ctx_.device);
  Context ctx = ctx_;
  ctx.mode = Mode::plan;
  ctx.arena = &arena;
  params_.start_step();
  run(ctx, shape, 1, Tape::Mode::train, recompute_, Check::none);
  run(ctx, shape, 1, Tape::Mode::infer, Recompute::none, Check::none);
  params_.start_step();
  return arena.peak();
}

StepLoss StepRunner::train(const MicroBatch& batch, double loss_scale) {
  return run(ctx_, batch, loss_scale, Tape::Mode::train, recompute_, Check::none, stats_);
}

double StepRunner::validate(const MicroBatch& batch) {
  return run(ctx_, batch, 1, Tape::Mode::infer, Recompute::none, Check::none).cross_entropy;
}

void StepRunner::report_nonfinite(const MicroBatch& batch, double loss_scale) {
  run(ctx_, batch, loss_scale, Tape::Mode::train, recompute_, Check::finite);
}

}  // namespace sluice
