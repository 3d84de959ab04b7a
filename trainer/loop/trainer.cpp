// trainer/loop/trainer.cpp -- set-up, the step, validation and checkpoints.
#include "trainer/loop/trainer.h"

#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <fstream>
#include <thread>

#include "configs/schema.h"
#include "data/tokenizer/tokenizer.h"
#include "kernels/gemm/gemm.h"
#include "model/lm/cost.h"
#include "optim/schedule.h"
#include "trainer/loop/fingerprint.h"
#include "trainer/loop/model_file.h"
#include "trainer/loop/resume.h"

namespace sluice {

static double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

static int thread_count(const RunConfig& run) {
  return run.threads ? int(*run.threads) : int(std::max(1u, std::thread::hardware_concurrency()));
}

// f32 FLOP/s of a plain product on all threads: what MFU is measured against.
static double measure_gemm_rate(const Context& ctx, int threads) {
  const int64_t n = 384;
  std::vector<float> a(size_t(n * n), 1), b(size_t(n * n), 1), c(size_t(n * n * threads), 0);
  auto once = [&] {
    parallel_for(ctx, threads, [&](int64_t t) {
      gemm<float>(Transpose::no, Transpose::yes, n, n, n, 1, a.data(), n, b.data(), n, 0,
                  &c[size_t(t * n * n)], n);
    });
  };
  once();
  double best = 1e9;
  for (int i = 0; i < 10; ++i) {
    const double begin = now();
    once();
    best = std::min(best, now() - begin);
  }
  return 2.0 * double(n * n * n) * threads / best;
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

void Trainer::open_data() {
  loader_ = std::make_unique<Loader>(config_.data, config_.train.batch_tokens,
                                     config_.train.micro_batch_tokens);
  loader_->check_supply(config_.train.steps);
  const Tokenizer tokenizer = Tokenizer::load(config_.data.tokenizer);
  auto check = [&](const std::string& what, const ShardInfo& info) {
    SLUICE_CHECK(info.tokenizer == tokenizer.fingerprint(), what, " was encoded with tokenizer ",
                 info.tokenizer, ", ", config_.data.tokenizer, " is ", tokenizer.fingerprint());
  };
  check("data.train", loader_->shard_info());
  if (!config_.model.vocab_size) config_.model.vocab_size = tokenizer.vocab_size();
  SLUICE_CHECK(*config_.model.vocab_size >= tokenizer.vocab_size(), "model.vocab_size is ",
               *config_.model.vocab_size, ", the tokenizer has ", tokenizer.vocab_size());
  for (const auto& [name, path] : config_.data.validation) {
    ValidationSet set(path, config_.data.seq_len_tokens, config_.train.micro_batch_tokens);
    check(path, set.shard_info());
    MicroBatchBuffer buffer = set.make_buffer();
    validation_.push_back({name, std::move(set), std::move(buffer)});
  }
  batch_ = std::make_unique<MicroBatchBuffer>(loader_->make_buffer());
}

void Trainer::plan_memory() {
  int64_t bytes = runner_->plan(batch_->batch());
  for (Valid& v : validation_) bytes = std::max(bytes, runner_->plan(v.buffer.batch()));
  Arena clip = Arena::plan(Device::cpu);
  Context plan = ctx_;
  plan.mode = Mode::plan;
  plan.arena = &clip;
  optimizer_->clip(plan, nullptr);
  bytes = std::max(bytes, clip.peak());
  arena_ = std::make_unique<Arena>(Device::cpu, bytes);
  ctx_.arena = arena_.get();
  runner_->use(*arena_);
  const double mib = 1 << 20, weights = double(params_->numel()) * 4;
  progress_.note(fmt::format(
      "memory   weights {:.1f} MiB, gradients {:.1f} MiB, optimizer {:.1f} MiB, step {:.1f} MiB",
      weights / mib, weights / mib, double(optimizer_->bytes()) / mib, double(bytes) / mib));
}

std::vector<NamedTensor> Trainer::named_moments() const {
  std::vector<NamedTensor> list;
  for (const AdamWOptimizer::Moments& m : optimizer_->moments()) {
    list.push_back({m.name + ".m", m.m});
    list.push_back({m.name + ".v", m.v});
  }
  return list;
}

void Trainer::resume() {
  remove_leftovers(lock_);
  std::vector<std::string> problems;
  const auto found = find_newest_valid(config_.run.dir, &problems);
  for (const std::string& p : problems) progress_.note("BROKEN CHECKPOINT " + p);
  SLUICE_CHECK(found || problems.empty(), config_.run.dir,
               ": every checkpoint is broken (above); starting afresh would hide that. Move the "
               "folder away to do so");
  if (found) {
    const CheckpointMeta meta = load_meta(*found);
    const ResumeReport report = check_resume(meta, config_, fingerprint(ctx_));
    for (const std::string& c : report.changed) progress_.note("changed  " + c);
    std::string all;
    for (const std::string& f : report.fatal) all += "\n  " + f;
    if (!report.fatal.empty())
      throw Error(cat(found->folder, " is of another run; use another run.dir:", all));
    load_tensors(*found, Part::weights, named_weights(*params_));
    load_tensors(*found, Part::optimizer, named_moments());
    step_ = saved_step_ = meta.step;
    for (const auto& [key, value] : meta.numbers)
      if (key.rfind("valid.", 0) == 0) last_valid_[key] = value;
    std::string why;
    for (const std::string& b : report.bitwise) why += "\n  " + b;
    progress_.note(fmt::format("resumed  {} ({})", found->folder,
                               why.empty() ? "bitwise" : "not bitwise:" + why));
  }
  first_step_ = step_;
  metrics_ = std::make_unique<JsonLines>(config_.run.dir + "/metrics.jsonl", step_);
  std::ofstream(config_.run.dir + "/config.yaml") << config::print(config_);
}

void Trainer::run() {
  if (step_ >= config_.train.steps)
    progress_.note(fmt::format("the run is complete: {} of {} steps", step_, config_.train.steps));
  started_ = now();
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

  const double elapsed = now() - started_, done = double(step_ - first_step_);
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

void Trainer::save() {
  CheckpointMeta meta{.step = step_,
                      .config_yaml = config::print(config_),
                      .fingerprint = fingerprint(ctx_),
                      .integers = {{"run.seed", config_.run.seed},
                                   {"data.seed", config_.data.seed},
                                   {"tokens", step_ * config_.train.batch_tokens}},
                      .numbers = last_valid_};
  meta.numbers["loss"] = last_loss_;
  const SaveResult saved =
      save_checkpoint(config_.run.dir, meta, named_weights(*params_), named_moments(),
                      {.keep_last = config_.checkpoint.keep_last,
                       .keep_every_steps = config_.checkpoint.keep_every_steps});
  saved_step_ = step_;
  for (const std::string& p : saved.problems) progress_.note("checkpoint: " + p);
  progress_.note("saved    " + saved.saved.folder);
}

}  // namespace sluice
