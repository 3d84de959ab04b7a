// trainer/loop/setup.cpp -- what a run needs before its first step: data and memory.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "trainer/checkpoint/folder.h"
#include "trainer/loop/measure.h"
#include "trainer/loop/trainer.h"
#include "trainer/loop/validation.h"

namespace sluice {

// All parts of the run, also those that begin in a week.
void Trainer::open_data() {
  const std::string tokenizer = open_vocabulary(config_);
  for (const DataPart& p : data_parts(config_)) {
    try {
      parts_.push_back(open_part(p, tokenizer));
    } catch (const Error& e) {
      if (p.begin == 0) throw;
      throw Error(cat("train.stages, at_step ", p.begin, ": ", e.what()));
    }
  }
}

Trainer::OpenPart Trainer::open_part(const DataPart& is, const std::string& tokenizer) const {
  auto check = [&](const std::string& what, const ShardInfo* info) {
    SLUICE_CHECK(!info || info->tokenizer == tokenizer, what, " was encoded with tokenizer ",
                 info->tokenizer, ", ", config_.data.tokenizer, " is ", tokenizer);
  };
  const int64_t micro_batch = config_.train.micro_batch_tokens;
  OpenPart part{is,
                std::make_unique<Loader>(is.data, config_.train.batch_tokens, micro_batch,
                                         int(mesh_.data_rank()), int(mesh_.data_ranks())),
                {},
                {},
                0};
  part.loader->check_supply(is.end - is.begin);
  check("data.train", part.loader->shard_info());
  part.batches = std::make_unique<Prefetcher>(*part.loader);
  for (NamedSet& named : validation_sets(is.data, micro_batch)) {
    check(named.path, named.set.shard_info());
    MicroBatchBuffer buffer = named.set.make_buffer();
    part.validation.push_back({named.name, std::move(named.set), std::move(buffer)});
  }
  return part;
}

// For the largest part, now: no step may find that there is too little.
void Trainer::take_memory() {
  PlannedShapes shapes;
  for (OpenPart& p : parts_) {
    shapes.train.push_back(p.loader->make_buffer());
    for (Valid& v : p.validation) shapes.score.push_back(v.set.make_buffer());
  }
  memory_ = plan_memory(ctx_, *params_, *stats_, *runner_, *optimizer_, std::move(shapes));
  arena_ = std::make_unique<Arena>(ctx_.device, memory_.step);
  ctx_.arena = arena_.get();
  runner_->use(*arena_);
  const auto mib = [](int64_t bytes) { return double(bytes) / (1 << 20); };
  const StoreBytes& p = memory_.params;
  progress_.note(fmt::format(
      "memory   weights {:.1f} MiB, gradients {:.1f} MiB, optimizer {:.1f} MiB{}, step {:.1f} MiB",
      mib(p.masters + p.copies), mib(p.gradients), mib(memory_.moments + memory_.host_moments),
      memory_.host_moments > 0 ? " (on the host)" : "", mib(memory_.step)));
  if (!alone())
    progress_.note(fmt::format(
        "ranks    {}: {}; gathered weights {:.1f} MiB, gradients before they are summed {:.1f} MiB",
        world_.size(), to_string(mesh_.shape()), mib(p.gathered), mib(p.unsharded)));
  open_saves();
}

void Trainer::describe_machine() {
  const double rate = measure_gemm_rate(ctx_, threads_.threads());
  peak_flops_ = rate * double(world_.size());
  const bool on_gpu = ctx_.device == Device::cuda;
  progress_.note(fmt::format("{} threads{}{}{}, GEMM rate {:.0f} GFLOP/s{}", threads_.threads(),
                             on_gpu ? cat(", ", gpu_name()) : "",
                             ctx_.determinism == Determinism::fast ? ", determinism: fast" : "",
                             on_gpu && !alone() ? ", no CUDA graphs with several ranks" : "",
                             rate / 1e9, alone() ? "" : " a rank"));
}

void Trainer::refuse_used_folder() const {
  const std::string& dir = config_.run.dir;
  std::string there;
  const size_t checkpoints = list_checkpoints(dir).size();
  if (checkpoints > 0) there += cat("\n  ", checkpoints, " checkpoints in ", dir, "/checkpoints");
  for (const char* name : {"metrics.jsonl", "tensorboard"})
    if (std::filesystem::exists(dir + "/" + name)) there += cat("\n  ", dir, "/", name);
  if (!there.empty())
    throw ExitError(ExitCode::config,
                    cat("--fresh: ", dir, " is a run's folder already:", there,
                        "\nWithout --fresh the run goes on; for a new one, use another run.dir "
                        "(--set run.dir=...) or move these away"));
}

}  // namespace sluice
