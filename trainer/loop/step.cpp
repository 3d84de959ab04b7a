// trainer/loop/step.cpp -- a tape from tokens to gradients.
#include "trainer/loop/step.h"

#include <algorithm>

#include "kernels/tensor/fill.h"
#include "kernels/tensor/float_dispatch.h"

namespace sluice {

Recompute recompute_of(const std::string& name) {
  if (name == "block") return Recompute::block;
  return name == "selective" ? Recompute::selective : Recompute::none;
}

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

namespace {

// A micro-batch where the ops read it: what the loader filled, or on CUDA a copy of that.
class BatchOnDevice {
 public:
  BatchOnDevice(const Context& ctx, const MicroBatch& batch)
      : tokens(place(ctx, batch.tokens)),
        targets(place(ctx, batch.targets)),
        cu_seqlens(place(ctx, batch.cu_seqlens)) {}

 private:
  Tensor place(const Context& ctx, const Tensor& t) {
    if (ctx.device == Device::cpu) return t;
    const Tensor& to = memory_.emplace_back(scratch(ctx, t.dtype, {t.dim(0)})).view();
    if (ctx.mode != Mode::plan) copy(t, to);
    return to;
  }
  std::vector<ArenaTensor> memory_;

 public:
  const Tensor tokens, targets, cu_seqlens;
};

}  // namespace

StepLoss StepRunner::run(const Context& ctx, const MicroBatch& batch, double loss_scale,
                         Tape::Mode mode, Recompute recompute, Check check, StepStats* stats,
                         const TokenOutputs& outputs, LayerProbe* probe) {
  set_scalar(ctx, loss_scale_.view(), loss_scale);
  const BatchOnDevice on_device(ctx, batch);
  Tape tape(ctx, params_, mode);
  tape.count_into(stats);
  tape.probe_into(probe);
  if (mode == Tape::Mode::train && ctx.mode != Mode::plan) tape.time_into(times_);
  if (check == Check::finite) tape.report_nonfinite();
  const Var loss = lm_.loss(tape,
                            {.tokens = on_device.tokens,
                             .targets = on_device.targets,
                             .loss_scale = loss_scale_.view(),
                             .sequences = {on_device.cu_seqlens, {}},
                             .z_loss = z_loss_,
                             .loss_terms = loss_terms_.view(),
                             .nll = outputs.nll,
                             .predicted = outputs.predicted},
                            recompute);
  if (mode == Tape::Mode::train) tape.backward(loss);
  if (ctx.mode == Mode::plan) return {};
  double terms[2];
  copy(loss_terms_.view(), make_tensor(terms, DType::f64, Device::cpu, {2}));
  return {terms[0], terms[1]};
}

int64_t StepRunner::peak_of(const std::function<void(const Context&)>& pass) const {
  Arena arena = Arena::plan(ctx_.device);
  Context ctx = ctx_;
  ctx.mode = Mode::plan;
  ctx.arena = &arena;
  params_.start_step();
  pass(ctx);
  params_.start_step();
  return arena.peak();
}

int64_t StepRunner::plan(const MicroBatch& shape) {
  const int64_t training = peak_of(
      [&](const Context& ctx) { run(ctx, shape, 1, Tape::Mode::train, recompute_, Check::none); });
  LayerProbe none;
  const int64_t probing = peak_of([&](const Context& ctx) {
    run(ctx, shape, 1, Tape::Mode::infer, Recompute::none, Check::none, nullptr, {}, &none);
  });
  return std::max({training, probing, plan_score(shape)});
}

int64_t StepRunner::plan_score(const MicroBatch& shape) {
  return peak_of([&](const Context& ctx) { score(ctx, shape); });
}

StepLoss StepRunner::train(const MicroBatch& batch, double loss_scale) {
  return run(ctx_, batch, loss_scale, Tape::Mode::train, recompute_, Check::none, stats_);
}

double StepRunner::score(const Context& ctx, const MicroBatch& batch) {
  const int64_t N = batch.tokens.dim(0);
  const DType T = params_.shards().front().master.dtype;  // that of the activations
  const ArenaTensor nll = scratch(ctx, T, {N}), predicted = scratch(ctx, DType::i32, {N});
  const double nats = run(ctx, batch, 1, Tape::Mode::infer, Recompute::none, Check::none, nullptr,
                          {nll.view(), predicted.view()})
                          .cross_entropy;
  nll_.resize(size_t(N));
  predicted_.resize(size_t(N));
  if (ctx.mode == Mode::plan) return 0;
  const Buffer host_nll(T, {N}), host_predicted(DType::i32, {N});
  copy(nll.view(), host_nll.view());
  copy(predicted.view(), host_predicted.view());
  for_float_type(host_nll.view(),
                 [&]<class F>(F) { std::copy_n(host_nll.view().as<F>(), N, nll_.begin()); });
  std::copy_n(host_predicted.view().as<int32_t>(), N, predicted_.begin());
  return nats;
}

Scores StepRunner::score(const MicroBatch& batch) {
  const double nats = score(ctx_, batch);
  return {nats, nll_, predicted_};
}

void StepRunner::probe(const MicroBatch& batch, LayerProbe& probe, StepStats& stats) {
  run(ctx_, batch, 1, Tape::Mode::infer, Recompute::none, Check::none, &stats, {}, &probe);
}

void StepRunner::report_nonfinite(const MicroBatch& batch, double loss_scale) {
  run(ctx_, batch, loss_scale, Tape::Mode::train, recompute_, Check::finite);
}

}  // namespace sluice
