// trainer/loop/trainer.cpp -- the loop: steps, validation, saves.
#include "trainer/loop/trainer.h"

#include <fmt/format.h>

#include <cmath>
#include <thread>

#include "model/lm/cost.h"
#include "optim/schedule.h"
#include "trainer/loop/measure.h"

namespace sluice {

static int thread_count(const RunConfig& run) {
  return run.threads ? int(*run.threads) : int(std::max(1u, std::thread::hardware_concurrency()));
}

Trainer::Trainer(const Config& config)
    : config_(config),
      lock_(config.run.dir),
      threads_(thread_count(config.run)),
      progress_(config.metrics.log_every_steps) {
  ctx_.threads = &threads_;
  open_data();
  params_ = std::make_unique<PlainStore>(DType::f32);
  lm_ = std::make_unique<Lm>(config_.model, *params_);
  params_->allocate();
  initialize(*params_, uint64_t(config_.run.seed));
  optimizer_ = std::make_unique<AdamWOptimizer>(config_.optim, *params_);
  runner_ = std::make_unique<StepRunner>(
      ctx_, *params_, *lm_,
      config_.train.recompute == "block" ? Recompute::block : Recompute::none);
  flops_per_token_ = train_flops_per_token(*lm_, config_.data.seq_len_tokens);
  progress_.note(cost_table(*lm_, *params_, config_.data.seq_len_tokens) + optimizer_->table());
  plan_memory();
  peak_flops_ = measure_gemm_rate(ctx_, threads_.threads());
  progress_.note(
      fmt::format("{} threads, GEMM rate {:.0f} GFLOP/s", threads_.threads(), peak_flops_ / 1e9));
  resume();
}

void Trainer::run() {
  if (step_ >= config_.train.steps)
    progress_.note(fmt::format("the run is complete: {} of {} steps", step_, config_.train.steps));
  started_ = monotonic_seconds();
  while (step_ < config_.train.steps) {
    train_step();
    const bool last = step_ == config_.train.steps;
    if (step_ % config_.train.validate_every_steps == 0 || last) validate();
    if (step_ % config_.checkpoint.every_steps == 0 || last) save();
  }
  for (const auto& [key, value] : last_valid_)
    progress_.note(fmt::format("final {} {:.4f}", key, value));
}

void Trainer::train_step() {
  const double scale = 1.0 / double(loader_->valid_tokens(step_));
  params_->start_step();
  double loss = 0;
  for (int64_t m = 0; m < loader_->micro_batches(); ++m) {
    loader_->load(step_, m, batch_->batch());
    loss += runner_->train(batch_->batch(), scale);
  }
  params_->finish_gradients();
  state_.step = step_ + 1;
  state_.lr = float(lr_at(config_.optim, step_ + 1, config_.train.steps));
  optimizer_->clip(ctx_, &state_);
  if (state_.skip) note_nonfinite();
  optimizer_->step(ctx_, &state_);
  ++step_;
  last_loss_ = loss;

  const double elapsed = monotonic_seconds() - started_, done = double(step_ - first_step_);
  const double rate = done * double(config_.train.batch_tokens) / elapsed;
  const double mfu = rate * flops_per_token_ / peak_flops_;
  metrics_->write("train", step_,
                  {{"loss", loss},
                   {"grad_norm", state_.grad_norm},
                   {"lr", state_.lr},
                   {"skipped", state_.skip},
                   {"tokens_per_second", rate},
                   {"mfu", mfu}});
  progress_.update({.step = step_,
                    .steps = config_.train.steps,
                    .loss = loss,
                    .grad_norm = state_.grad_norm,
                    .lr = state_.lr,
                    .tokens_per_second = rate,
                    .mfu = mfu,
                    .eta_seconds = elapsed / done * double(config_.train.steps - step_)});
}

// The step is lost anyway: run it once more, op by op, to say which one made the first bad number.
void Trainer::note_nonfinite() {
  progress_.note(
      fmt::format("step {}: the gradients are not finite; the step is skipped", step_ + 1));
  const double scale = 1.0 / double(loader_->valid_tokens(step_));
  for (int64_t m = 0; m < loader_->micro_batches(); ++m) {
    loader_->load(step_, m, batch_->batch());
    try {
      params_->start_step();
      runner_->report_nonfinite(batch_->batch(), scale);
    } catch (const Error& e) {
      progress_.note(fmt::format("  micro-batch {}: {}", m, e.what()));
      return;
    }
  }
}

void Trainer::validate() {
  for (Valid& v : validation_) {
    double nats = 0, tokens = 0;
    for (int64_t m = 0; m < v.set.micro_batches(); ++m) {
      v.set.load(m, v.buffer.batch());
      nats += runner_->validate(v.buffer.batch());
      tokens += double(v.buffer.batch().valid_tokens);
    }
    const double bits_per_byte = nats / std::log(2.0) / double(v.set.text_bytes());
    last_valid_["valid." + v.name + ".bits_per_byte"] = bits_per_byte;
    last_valid_["valid." + v.name + ".loss"] = nats / tokens;
    metrics_->write("valid." + v.name, step_,
                    {{"loss", nats / tokens}, {"bits_per_byte", bits_per_byte}});
    progress_.note(fmt::format("valid    step {}  {}  loss {:.4f}  bits/byte {:.4f}", step_, v.name,
                               nats / tokens, bits_per_byte));
  }
}

}  // namespace sluice
