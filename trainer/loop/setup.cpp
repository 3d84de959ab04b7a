// trainer/loop/setup.cpp -- what a run needs before its first step: data and memory.
#include <fmt/format.h>

#include <algorithm>

#include "data/tokenizer/tokenizer.h"
#include "trainer/loop/trainer.h"

namespace sluice {

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

}  // namespace sluice
