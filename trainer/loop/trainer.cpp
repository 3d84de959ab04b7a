// trainer/loop/trainer.cpp -- the loop: steps, validation, saves, and why it ends.
#include "trainer/loop/trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <thread>

#include "kernels/tensor/fill.h"
#include "model/lm/cost.h"
#include "optim/qk_clip.h"
#include "trainer/loop/layer_fields.h"
#include "trainer/loop/measure.h"
#include "trainer/loop/validation.h"
#include "trainer/metrics/expert_load.h"

namespace sluice {

static int thread_count(const RunConfig& run) {
  return run.threads ? int(*run.threads) : int(std::max(1u, std::thread::hardware_concurrency()));
}

// Other ranks go on when rank 0 has the folder.
static std::unique_ptr<RunLock> lock_folder(const std::string& dir, Comm& world) {
  auto lock = world.rank() == 0 ? std::make_unique<RunLock>(dir) : nullptr;
  world.barrier({.what = "run folder"});
  return lock;
}

Trainer::Trainer(const Config& config, Folder folder, Comm* world)
    : config_(config),
      world_(world ? *world : nobody_else_),
      mesh_(with_code(ExitCode::config, [&] { return mesh_shape(config.parallel, world_.size()); }),
            world_),
      lock_(lock_folder(config.run.dir, world_)),
      threads_(thread_count(config.run)),
      ctx_{.threads = &threads_},
      handles_(device_of(config.run.device), ctx_, determinism_of(config.run.determinism)),
      progress_(config.metrics.log_every_steps,
                speaks() ? Progress::Voice::loud : Progress::Voice::silent),
      schedule_(schedule_parts(config)),
      spikes_(config.train.spike) {
  Trace::set_rank(world_.rank());
  check_same_run();
  if (folder == Folder::fresh && speaks()) refuse_used_folder();
  with_code(ExitCode::data, [&] { open_data(); });
  with_code(ExitCode::config, [&] {
    SLUICE_CHECK(mesh_.shape().expert == 1,
                 "parallel.expert above 1: its layers are not there yet");
    params_ = make_store(config_.parallel, config_.model, mesh_, ctx_.device);
    lm_ = std::make_unique<Lm>(config_.model, *params_);
    params_->allocate();
    initialize(*params_, uint64_t(config_.run.seed));
    ShardGroups groups;
    if (!alone())
      groups = {shard_group(mesh_.replica(), *params_, false),
                shard_group(mesh_.expert_data(), *params_, true)};
    optimizer_ = std::make_unique<Optimizer>(config_.optim, *params_, std::move(groups),
                                             uint64_t(config_.run.seed));
  });
  stats_ = std::make_unique<StepStats>(*params_, ctx_.device);
  runner_ =
      std::make_unique<StepRunner>(ctx_, *params_, *lm_, recompute_of(config_.train.recompute),
                                   config_.train.z_loss, stats_.get());
  if (mesh_.shape().context > 1) runner_->cut_over(mesh_.context());
  runner_->use_graphs(graphs_ ? StepRunner::Graphs::on : StepRunner::Graphs::off);
  results_ = std::make_unique<StepResults>(ctx_.device, *stats_);
  for (OpenPart& p : parts_)
    p.flops_per_token = train_flops_per_token(*lm_, p.is.data.seq_len_tokens);
  progress_.note(cost_table(*lm_, *params_, config_.data.seq_len_tokens) + optimizer_->table() +
                 stage_table(data_parts(config_), schedule_, config_.train.batch_tokens) +
                 parts_.front().loader->packing_table());
  take_memory();
  describe_machine();
  with_code(ExitCode::checkpoint, [&] { start(); });
  state_.put({.step = updates_});
  params_->refresh(ctx_);
}

ExitCode Trainer::run() {
  if (step_ >= config_.train.steps)
    progress_.note(fmt::format("the run is complete: {} of {} steps", step_, config_.train.steps));
  const auto due = [&](int64_t every) {
    return step_ % every == 0 || step_ == config_.train.steps;
  };
  const CheckpointConfig& c = config_.checkpoint;
  first_step_ = started_at_ = step_;
  started_ = monotonic_seconds();
  while (step_ < config_.train.steps) {
    if (const int signal = stop_signal()) return stop_for(signal);
    note_profile();
    enter_part();
    forward_backward();
    // Of the step before, while the GPU works on this one, whose update may still be left out.
    const Gradients gradients = settle();
    if (ended_by_nonfinite()) return stop_nonfinite();
    if (gradients == Gradients::lost) forward_backward();
    update();
    const bool saves = due(c.every_steps) || (c.keep_every_steps && due(*c.keep_every_steps));
    const bool validates = due(config_.train.validate_every_steps);
    if (saves || validates || ctx_.device == Device::cpu) settle();
    if (ended_by_nonfinite()) return stop_nonfinite();
    if (validates) {
      validate();
      report_layers();
    }
    if (saves) save(Wait::no);
    report_saves(Wait::no);
  }
  note_profile();
  report_saves(Wait::yes);
  metrics_->note("done", step_, {});
  for (const auto& [key, value] : last_valid_)
    progress_.note(fmt::format("final {} {:.4f}", key, value));
  return ExitCode::done;
}

void Trainer::note_profile() {
  if (profile_ && profile_->at(step_ - started_at_)) progress_.note("profile  is written");
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
  settle();
  first_step_ = step_;
  started_ = monotonic_seconds();
  progress_.note(fmt::format("stage    from step {} on: rows of {} tokens, {} a batch", step_ + 1,
                             p.is.data.seq_len_tokens,
                             config_.train.batch_tokens / p.is.data.seq_len_tokens));
  metrics_->note("stage", step_, {{"seq_len_tokens", std::to_string(p.is.data.seq_len_tokens)}});
}

void Trainer::report(const Outcome& outcome) {
  const int64_t step = outcome.step + 1;
  const StepState& state = outcome.state;
  const double elapsed = monotonic_seconds() - started_, done = double(step - first_step_);
  const double rate = done * double(config_.train.batch_tokens) / elapsed;
  const double mfu = rate * part_of(outcome.step).flops_per_token / peak_flops_;
  if (!outcome.skipped.empty()) {
    progress_.note(fmt::format("SKIPPED  step {}: {}", step, outcome.skipped));
    metrics_->note("skip", step, {{"why", outcome.skipped}});
  } else if (!outcome.spike.empty()) {
    progress_.note(fmt::format("SPIKE    step {}: {}", step, outcome.spike));
    metrics_->note("spike", step, {{"why", outcome.spike}});
  }
  MetricFields fields{{"loss", state.cross_entropy},
                      {"grad_norm", state.grad_norm},
                      {"lr", state.lr},
                      {"skipped", state.skip},
                      {"skipped_total", double(step - updates_)},
                      {"tokens_per_second", rate},
                      {"mfu", mfu},
                      {"data_wait_ms", outcome.data_wait_ms}};
  if (config_.train.z_loss > 0) fields.push_back({"z_loss", state.z_loss});
  if (results_->expert_counts()) append(fields, expert_load(results_->expert_counts()));
  if (const Tensor& logits = results_->max_logits()) {
    const float* s = logits.as<float>();
    fields.push_back({"max_attention_logit", *std::max_element(s, s + logits.numel())});
    if (const auto threshold = config_.optim.qk_clip_threshold)
      fields.push_back(
          {"qk_clipped_heads", state.skip ? 0.0 : double(heads_over(logits, *threshold))});
  }
  metrics_->write("train", step, fields);
  progress_.update({.step = step,
                    .steps = config_.train.steps,
                    .loss = state.cross_entropy,
                    .grad_norm = state.grad_norm,
                    .lr = state.lr,
                    .tokens_per_second = rate,
                    .mfu = mfu,
                    .eta_seconds = elapsed / done * double(config_.train.steps - step)});
}

void Trainer::validate() {
  if (results_->expert_counts())
    progress_.note(fmt::format("experts  step {}  {}", step_,
                               to_string(expert_load(results_->expert_counts()))));
  for (Valid& v : part_of(step_ - 1).validation) {
    const SetLoss loss =
        measure_set(v.set, v.buffer.batch(), [&](const MicroBatch& b) { return runner_->score(b); },
                    {}, {mesh_.data_rank(), mesh_.data_ranks(), [&](const Tensor& t) {
                           // All of a context group have the same scores.
                           if (mesh_.context_rank() > 0) zero({}, t);
                           sum_on_host(t, "validation");
                         }});
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
  settle();
  if (ended_by_nonfinite()) return stop_nonfinite();
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
