// trainer/loop/trainer.cpp -- the loop: steps, validation, saves, and why it ends.
#include "trainer/loop/trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <thread>

#include "model/lm/cost.h"
#include "optim/expert_bias.h"
#include "optim/qk_clip.h"
#include "trainer/loop/layer_fields.h"
#include "trainer/loop/measure.h"
#include "trainer/loop/validation.h"
#include "trainer/metrics/expert_load.h"

namespace sluice {

static int thread_count(const RunConfig& run) {
  return run.threads ? int(*run.threads) : int(std::max(1u, std::thread::hardware_concurrency()));
}

Trainer::Trainer(const Config& config, Folder folder)
    : config_(config),
      lock_(config.run.dir),
      threads_(thread_count(config.run)),
      ctx_{.threads = &threads_},
      handles_(device_of(config.run.device), ctx_),
      progress_(config.metrics.log_every_steps),
      schedule_(schedule_parts(config)),
      spikes_(config.train.spike) {
  if (folder == Folder::fresh) refuse_used_folder();
  with_code(ExitCode::data, [&] { open_data(); });
  with_code(ExitCode::config, [&] {
    params_ = std::make_unique<PlainStore>(DType::f32, ctx_.device);
    lm_ = std::make_unique<Lm>(config_.model, *params_);
    params_->allocate();
    initialize(*params_, uint64_t(config_.run.seed));
    optimizer_ = std::make_unique<Optimizer>(config_.optim, *params_);
  });
  stats_ = std::make_unique<StepStats>(*params_, ctx_.device);
  runner_ =
      std::make_unique<StepRunner>(ctx_, *params_, *lm_, recompute_of(config_.train.recompute),
                                   config_.train.z_loss, stats_.get());
  for (OpenPart& p : parts_)
    p.flops_per_token = train_flops_per_token(*lm_, p.is.data.seq_len_tokens);
  progress_.note(cost_table(*lm_, *params_, config_.data.seq_len_tokens) + optimizer_->table() +
                 stage_table(data_parts(config_), schedule_, config_.train.batch_tokens) +
                 parts_.front().loader->packing_table());
  plan_memory();
  peak_flops_ = measure_gemm_rate(ctx_, threads_.threads());
  progress_.note(fmt::format("{} threads{}, GEMM rate {:.0f} GFLOP/s", threads_.threads(),
                             ctx_.device == Device::cuda ? cat(", ", gpu_name()) : "",
                             peak_flops_ / 1e9));
  with_code(ExitCode::checkpoint, [&] { start(); });
  params_->refresh(ctx_);
}

ExitCode Trainer::run() {
  if (step_ >= config_.train.steps)
    progress_.note(fmt::format("the run is complete: {} of {} steps", step_, config_.train.steps));
  const auto due = [&](int64_t every) {
    return step_ % every == 0 || step_ == config_.train.steps;
  };
  const CheckpointConfig& c = config_.checkpoint;
  first_step_ = step_;
  started_ = monotonic_seconds();
  while (step_ < config_.train.steps) {
    if (const int signal = signals_.received()) return stop_for(signal);
    enter_part();
    train_step();
    if (nonfinite_ > 0 &&
        (!config_.train.nonfinite.skip || nonfinite_ >= config_.train.nonfinite.stop_after))
      return stop_nonfinite();
    if (due(config_.train.validate_every_steps)) {
      validate();
      report_layers();
    }
    if (due(c.every_steps) || (c.keep_every_steps && due(*c.keep_every_steps))) save(Wait::no);
    report_saves(Wait::no);
  }
  report_saves(Wait::yes);
  metrics_->note("done", step_, {});
  for (const auto& [key, value] : last_valid_)
    progress_.note(fmt::format("final {} {:.4f}", key, value));
  return ExitCode::done;
}

Trainer::OpenPart& Trainer::part_of(int64_t step) {
  size_t i = parts_.size() - 1;
  while (i > 0 && parts_[i].is.begin > step) --i;
  return parts_[i];
}

// The rate counts from here: the steps of another context length take another time.
void Trainer::enter_part() {
  const OpenPart& p = part_of(step_);
  if (p.is.begin != step_ || step_ == 0) return;
  first_step_ = step_;
  started_ = monotonic_seconds();
  progress_.note(fmt::format("stage    from step {} on: rows of {} tokens, {} a batch", step_ + 1,
                             p.is.data.seq_len_tokens,
                             config_.train.batch_tokens / p.is.data.seq_len_tokens));
  metrics_->note("stage", step_, {{"seq_len_tokens", std::to_string(p.is.data.seq_len_tokens)}});
}

void Trainer::train_step() {
  OpenPart& part = part_of(step_);
  const double waited_ms = part.batches->waited_ms();
  params_->start_step();
  stats_->start_step(ctx_);
  StepLoss loss;
  for (int64_t m = 0; m < part.loader->micro_batches(); ++m) {
    const MicroBatch& batch = part.batches->get(step_ - part.is.begin, m);
    const StepLoss part_of_loss = runner_->train(batch, 1.0 / double(batch.step_valid_tokens));
    loss.cross_entropy += part_of_loss.cross_entropy;
    loss.z_loss += part_of_loss.z_loss;
  }
  params_->finish_gradients();
  state_.step = updates_ + 1;
  state_.lr = float(lr_after(schedule_, step_));
  optimizer_->clip(ctx_, device_state_.put(state_));
  device_state_.take(state_);
  Outcome outcome = judge(loss);
  outcome.data_wait_ms = part.batches->waited_ms() - waited_ms;
  const StepState* state = device_state_.put(state_);
  optimizer_->step(ctx_, state);
  if (const auto threshold = config_.optim.qk_clip_threshold)
    outcome.heads_clipped = qk_clip(ctx_, *params_, *stats_, *threshold, &state_);
  update_expert_bias(ctx_, *params_, *stats_, config_.model.moe.bias_update_rate, state);
  params_->refresh(ctx_);
  ++step_;
  if (!state_.skip) ++updates_;
  last_loss_ = loss.cross_entropy;
  report(outcome);
}

// Decides whether the step may change anything; nothing has been changed yet.
Trainer::Outcome Trainer::judge(const StepLoss& loss) {
  Outcome outcome{
      .loss = loss, .skipped = {}, .spike = spikes_.judge(loss.cross_entropy, state_.grad_norm)};
  if (state_.skip || !std::isfinite(loss.cross_entropy + loss.z_loss)) {
    state_.skip = 1;
    ++nonfinite_;
    nonfinite_where_ = find_nonfinite();
    outcome.skipped = "not finite: " + nonfinite_where_;
  } else {
    nonfinite_ = 0;
    if (config_.train.spike.skip && !outcome.spike.empty()) {
      state_.skip = 1;
      outcome.skipped = "spike: " + outcome.spike;
    }
  }
  return outcome;
}

// The step is lost anyway: run it once more, op by op, to say which one made the first bad number.
std::string Trainer::find_nonfinite() {
  OpenPart& part = part_of(step_);
  for (int64_t m = 0; m < part.loader->micro_batches(); ++m) {
    const MicroBatch& batch = part.batches->get(step_ - part.is.begin, m);
    try {
      params_->start_step();
      runner_->report_nonfinite(batch, 1.0 / double(batch.step_valid_tokens));
    } catch (const Error& e) {
      return cat("micro-batch ", m, ": ", e.what());
    }
  }
  return "every op's result is finite, the gradients' norm or the sum of the losses is not";
}

void Trainer::report(const Outcome& outcome) {
  const double elapsed = monotonic_seconds() - started_, done = double(step_ - first_step_);
  const double rate = done * double(config_.train.batch_tokens) / elapsed;
  const double mfu = rate * part_of(step_ - 1).flops_per_token / peak_flops_;
  if (!outcome.skipped.empty()) {
    progress_.note(fmt::format("SKIPPED  step {}: {}", step_, outcome.skipped));
    metrics_->note("skip", step_, {{"why", outcome.skipped}});
  } else if (!outcome.spike.empty()) {
    progress_.note(fmt::format("SPIKE    step {}: {}", step_, outcome.spike));
    metrics_->note("spike", step_, {{"why", outcome.spike}});
  }
  MetricFields fields{{"loss", outcome.loss.cross_entropy},
                      {"grad_norm", state_.grad_norm},
                      {"lr", state_.lr},
                      {"skipped", state_.skip},
                      {"skipped_total", double(step_ - updates_)},
                      {"tokens_per_second", rate},
                      {"mfu", mfu},
                      {"data_wait_ms", outcome.data_wait_ms}};
  if (config_.train.z_loss > 0) fields.push_back({"z_loss", outcome.loss.z_loss});
  if (const Tensor& counts = stats_->expert_counts()) {
    const Buffer on_host(counts.dtype, {counts.dim(0), counts.dim(1)});
    copy(counts, on_host.view());
    last_load_ = expert_load(on_host.view());
    append(fields, last_load_);
  }
  if (const Tensor& logits = stats_->max_logits()) {
    const Buffer on_host(logits.dtype, {logits.dim(0), logits.dim(1)});
    copy(logits, on_host.view());
    const float* s = on_host.view().as<float>();
    fields.push_back({"max_attention_logit", *std::max_element(s, s + logits.numel())});
    if (config_.optim.qk_clip_threshold)
      fields.push_back({"qk_clipped_heads", double(outcome.heads_clipped)});
  }
  metrics_->write("train", step_, fields);
  progress_.update({.step = step_,
                    .steps = config_.train.steps,
                    .loss = outcome.loss.cross_entropy,
                    .grad_norm = state_.grad_norm,
                    .lr = state_.lr,
                    .tokens_per_second = rate,
                    .mfu = mfu,
                    .eta_seconds = elapsed / done * double(config_.train.steps - step_)});
}

void Trainer::validate() {
  if (stats_->expert_counts())
    progress_.note(fmt::format("experts  step {}  {}", step_, to_string(last_load_)));
  for (Valid& v : part_of(step_ - 1).validation) {
    const SetLoss loss = measure_set(v.set, v.buffer.batch(),
                                     [&](const MicroBatch& b) { return runner_->score(b); });
    MetricFields fields{{"loss", loss.loss()}};
    std::string line = fmt::format("valid    step {}  {}  loss {:.4f}", step_, v.name, loss.loss());
    if (const auto bits = loss.bits_per_byte()) {
      fields.push_back({"bits_per_byte", *bits});
      line += fmt::format("  bits/byte {:.4f}", *bits);
    }
    if (loss.chance) {
      fields.push_back({"accuracy", loss.accuracy()});
      line += fmt::format("  accuracy {:.4f} (chance {:.4f})", loss.accuracy(), *loss.chance);
    }
    for (const auto& [key, value] : fields) last_valid_[cat("valid.", v.name, ".", key)] = value;
    metrics_->write("valid." + v.name, step_, fields);
    progress_.note(line);
  }
}

// Of the first micro-batch of the first validation set, which is the same each time.
void Trainer::report_layers() {
  OpenPart& part = part_of(step_ - 1);
  if (part.validation.empty()) return;
  Valid& v = part.validation.front();
  v.set.load(0, v.buffer.batch());
  LayerProbe probe;
  StepStats stats(*params_, ctx_.device);
  stats.start_step(ctx_);
  runner_->probe(v.buffer.batch(), probe, stats);
  const MetricFields fields = layer_fields(*params_, probe, stats);
  if (!fields.empty()) metrics_->write("layers", step_, fields);
}

ExitCode Trainer::stop_for(int signal) {
  report_saves(Wait::yes);
  if (step_ > 0 && saved_step_ != step_) save();
  const ExitCode code = signal == SIGINT ? ExitCode::interrupted : ExitCode::requeue;
  metrics_->note("signal", step_, {{"signal", signal_name(signal)}});
  progress_.note(fmt::format("{}: stopped after step {}{}; the same command goes on (exit code {})",
                             signal_name(signal), step_, step_ > 0 ? ", which is saved" : "",
                             int(code)));
  return code;
}

// Nothing is saved: what is on the disk is from before the trouble, or from in between with the
// weights of before.
ExitCode Trainer::stop_nonfinite() {
  report_saves(Wait::yes);
  metrics_->note("stop", step_, {{"why", nonfinite_where_}});
  progress_.note(fmt::format(
      "STOPPED  {} of {}: steps {} to {} were not finite, the model is as it was after step {}.\n"
      "         {}\n"
      "         {} (exit code {})",
      step_, config_.train.steps, step_ - nonfinite_ + 1, step_, step_ - nonfinite_,
      nonfinite_where_,
      saved_step_ < 0 ? "no checkpoint was written"
                      : cat("the newest checkpoint is that of step ", saved_step_),
      int(ExitCode::nonfinite)));
  return ExitCode::nonfinite;
}

}  // namespace sluice
