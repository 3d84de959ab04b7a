// trainer/loop/step.cpp -- a tape from tokens to gradients.
#include "trainer/loop/step.h"

#include <algorithm>

#include "kernels/base/trace.h"
#include "kernels/step_control/step_control.h"
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
      inputs_(ctx.device) {}

void StepRunner::cut_over(Comm& context) {
  const int64_t taps = lm_.config().kda.short_conv_kernel_size;
  context_.emplace(context, std::max<int64_t>(taps - 1, 0), ctx_.device);
}

BatchInputs::View StepRunner::planned(const MicroBatch& shape) {
  if (!context_) return inputs_.plan(shape);
  BatchInputs::View view = inputs_.plan(context_->plan(shape));
  view.exchange = &context_->exchange();
  return view;
}

BatchInputs::View StepRunner::put(const MicroBatch& batch, double loss_scale) {
  if (!context_) return inputs_.put(ctx_, batch, loss_scale);
  BatchInputs::View view = inputs_.put(ctx_, context_->cut(ctx_, batch), loss_scale);
  view.exchange = &context_->exchange();
  return view;
}

// What a piece takes depends on where its documents begin: less than planned, but elsewhere.
PlannedPeak StepRunner::with_gaps(PlannedPeak peak) const {
  if (context_) peak.bytes += peak.bytes / 8;
  return peak;
}

void StepRunner::use(Arena& arena) {
  ctx_.arena = &arena;
  inputs_.allocate();
  if (!loss_terms_.view()) loss_terms_ = Buffer(DType::f64, {2}, ctx_.device);
}

void StepRunner::run(const Context& ctx, const BatchInputs::View& batch, Tape::Mode mode,
                     Recompute recompute, const Watch& watch, const TokenOutputs& outputs) {
  const bool plan = ctx.mode == Mode::plan;
  Tape tape(ctx, params_, mode);
  tape.count_into(watch.stats);
  tape.probe_into(watch.probe);
  tape.report_nonfinite(watch.nonfinite);
  if (mode == Tape::Mode::train && !plan) tape.time_into(times_);
  const Tensor terms =
      plan ? make_tensor(nullptr, DType::f64, ctx.device, {2}) : loss_terms_.view();
  Var loss;
  {
    const ProfileRange range("forward");
    const TraceScope scope("forward", TraceRow::phases);
    loss = lm_.loss(tape,
                    {.tokens = batch.tokens,
                     .targets = batch.targets,
                     .loss_scale = batch.loss_scale,
                     .sequences = {.cu_seqlens = batch.cu_seqlens,
                                   .longest = batch.longest,
                                   .exchange = batch.exchange},
                     .z_loss = z_loss_,
                     .loss_terms = terms,
                     .nll = outputs.nll,
                     .predicted = outputs.predicted},
                    recompute);
  }
  const ProfileRange range("backward");
  const TraceScope scope("backward", TraceRow::phases);
  if (mode == Tape::Mode::train) tape.backward(loss);
}

PlannedPeak StepRunner::peak_of(const std::function<void(const Context&)>& pass) const {
  Arena arena = Arena::plan(ctx_.device);
  Context ctx = ctx_;
  ctx.mode = Mode::plan;
  ctx.arena = &arena;
  params_.start_step();
  pass(ctx);
  params_.start_step();
  return {arena.peak(), arena.at_peak()};
}

PlannedPeak StepRunner::plan_peak(const MicroBatch& shape) {
  const BatchInputs::View batch = planned(shape);
  const PlannedPeak training =
      peak_of([&](const Context& ctx) { run(ctx, batch, Tape::Mode::train, recompute_, {}); });
  LayerProbe none;
  const PlannedPeak probing = peak_of([&](const Context& ctx) {
    run(ctx, batch, Tape::Mode::infer, Recompute::none, {.probe = &none});
  });
  return std::max({with_gaps(training), with_gaps(probing), plan_score_peak(shape)},
                  [](const auto& a, const auto& b) { return a.bytes < b.bytes; });
}

PlannedPeak StepRunner::plan_score_peak(const MicroBatch& shape) {
  const BatchInputs::View batch = planned(shape);
  return with_gaps(peak_of([&](const Context& ctx) { score(ctx, batch); }));
}

void StepRunner::begin_step(StepState* state, float lr, int32_t stop) {
  state_ = state;
  micro_batch_ = 0;
  if (stats_) stats_->start_step(ctx_);
  sluice::begin_step(ctx_, state, lr, stop);
}

void StepRunner::train_pass(const BatchInputs::View& batch, StepStats* stats) {
  if (micro_batch_ == 0) params_.start_step();
  run(ctx_, batch, Tape::Mode::train, recompute_, {.stats = stats});
  add_loss(ctx_, loss_terms_.view(), state_);
}

void StepRunner::train(const MicroBatch& batch, double loss_scale) {
  SLUICE_CHECK(state_, "train() before begin_step()");
  const BatchInputs::View inputs = put(batch, loss_scale);
  const bool empty = batch.valid_tokens == 0;
  const auto pass = [&] { train_pass(inputs, empty ? nullptr : stats_); };
  if (!graphs_on_ || times_) {
    pass();
  } else {
    const Kind kind{batch.tokens.dim(0), batch.cu_seqlens.dim(0), batch.longest, micro_batch_ == 0,
                    empty};
    Replay& replay = replays_[kind];
    if (replay.ran && !replay.graph) replay.graph.capture(ctx_, pass);
    if (replay.graph)
      replay.graph.launch(ctx_);
    else
      pass();
    replay.ran = true;
  }
  ++micro_batch_;
}

double StepRunner::score(const Context& ctx, const BatchInputs::View& batch) {
  const int64_t n = batch.tokens.dim(0);
  const SequenceExchange* const others = batch.exchange;
  const int64_t N = others ? others->all_rows() : n, ranks = others ? others->ranks() : 1;
  const DType T = params_.shards().front().master.dtype;  // that of the activations
  const ArenaTensor nll = scratch(ctx, T, {n}), predicted = scratch(ctx, DType::i32, {n});
  const int64_t of_all = others ? N : 0;
  const ArenaTensor all_nll = scratch(ctx, T, {of_all});
  const ArenaTensor all_predicted = scratch(ctx, DType::i32, {of_all});
  const ArenaTensor all_terms = scratch(ctx, DType::f64, {others ? ranks : 0, 2});
  run(ctx, batch, Tape::Mode::infer, Recompute::none, {}, {nll.view(), predicted.view()});
  if (others) {
    others->all_rows(ctx, nll, all_nll);
    others->all_rows(ctx, predicted, all_predicted);
    others->from_all(ctx, ctx.mode == Mode::plan ? all_terms.view().rows(0, 1) : loss_terms_.view(),
                     all_terms);
  }
  nll_.resize(size_t(N));
  predicted_.resize(size_t(N));
  if (ctx.mode == Mode::plan) return 0;
  const Buffer host_nll(T, {N}), host_predicted(DType::i32, {N}), terms(DType::f64, {ranks, 2});
  copy(others ? all_nll.view() : nll.view(), host_nll.view());
  copy(others ? all_predicted.view() : predicted.view(), host_predicted.view());
  copy(others ? all_terms.view() : loss_terms_.view().reshape({1, 2}), terms.view());
  for_float_type(host_nll.view(),
                 [&]<class F>(F) { std::copy_n(host_nll.view().as<F>(), N, nll_.begin()); });
  std::copy_n(host_predicted.view().as<int32_t>(), N, predicted_.begin());
  double nats = 0;
  for (int64_t r = 0; r < ranks; ++r) nats += terms.view().row<double>(r)[0];
  return nats;
}

Scores StepRunner::score(const MicroBatch& batch) {
  const double nats = score(ctx_, put(batch, 1));
  return {nats, nll_, predicted_};
}

void StepRunner::probe(const MicroBatch& batch, LayerProbe& probe, StepStats& stats) {
  run(ctx_, put(batch, 1), Tape::Mode::infer, Recompute::none, {.stats = &stats, .probe = &probe});
}

// The store then has parts of gradients, and knows of which: captured passes would not.
NonfiniteFinding StepRunner::find_nonfinite(const MicroBatch& batch, double loss_scale) {
  replays_.clear();
  params_.start_step();
  NonfiniteFinding first;
  run(ctx_, put(batch, loss_scale), Tape::Mode::train, recompute_, {.nonfinite = &first});
  return first;
}

}  // namespace sluice
