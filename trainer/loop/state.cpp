// trainer/loop/state.cpp -- where a run starts.
#include <fmt/format.h>

#include "configs/schema.h"
#include "model/export/posix_file.h"
#include "trainer/checkpoint/exchange.h"
#include "trainer/loop/fingerprint.h"
#include "trainer/loop/init.h"
#include "trainer/loop/model_file.h"
#include "trainer/loop/resume.h"
#include "trainer/loop/trainer.h"

namespace sluice {

void Trainer::start() {
  if (speaks()) remove_leftovers(*lock_);
  std::vector<std::string> problems;
  const auto found =
      find_newest_valid(config_.run.dir, &problems, Verify::contents, alone() ? nullptr : &world_);
  for (const std::string& p : problems) progress_.note("BROKEN CHECKPOINT " + p);
  SLUICE_CHECK(found || problems.empty(), config_.run.dir,
               ": every checkpoint is broken (above); starting afresh would hide that. Move the "
               "folder away to do so");
  if (found)
    resume(*found);
  else if (config_.run.init)
    start_from(*config_.run.init);
  metrics_ = std::make_unique<Metrics>(
      config_.run.dir, step_,
      speaks()
          ? MetricsFiles{.jsonl = config_.metrics.jsonl, .tensorboard = config_.metrics.tensorboard}
          : MetricsFiles{.jsonl = false, .tensorboard = false},
      [this](const std::string& text) { progress_.note(text); });
  TextFields facts;
  if (found) facts.emplace_back("checkpoint", found->folder);
  if (!found && config_.run.init) facts.emplace_back("init", config_.run.init->from);
  for (const auto& [key, value] : fingerprint(ctx_, mesh_.shape())) facts.emplace_back(key, value);
  metrics_->note(found ? "resume" : "start", step_, facts);
  if (speaks()) replace_text(config_.run.dir + "/config.yaml", config::print(config_));
}

// This rank's shards.
void Trainer::load_state(const CheckpointRef& from, bool optimizer) {
  on_all_ranks(world_, [&] {
    load_tensors(from, Part::weights, named_weights(*params_));
    if (optimizer) load_tensors(from, Part::optimizer, named_moments(*params_, *optimizer_));
  });
}

void Trainer::resume(const CheckpointRef& from) {
  const CheckpointMeta meta = load_meta(from);
  const ResumeReport report = check_resume(meta, config_, fingerprint(ctx_, mesh_.shape()));
  for (const std::string& c : report.changed) progress_.note("changed  " + c);
  std::string all;
  for (const std::string& f : report.fatal) all += "\n  " + f;
  if (!report.fatal.empty())
    throw Error(cat(from.folder, " is of another run:", all,
                    "\nSet these back to go on with it, or give the new run a run.dir of its own"));
  load_state(from, true);
  load_progress(meta);
  saved_step_ = step_;
  for (const auto& [key, value] : meta.integers)
    if (key.rfind("init.", 0) == 0) init_[key] = value;
  std::string why;
  for (const std::string& b : report.bitwise) why += "\n  " + b;
  if (config_.run.init) progress_.note("run.init was for the first start: the run has checkpoints");
  progress_.note(
      fmt::format("resumed  {} ({})", from.folder, why.empty() ? "bitwise" : "not bitwise:" + why));
}

void Trainer::start_from(const InitConfig& init) {
  std::vector<std::string> skipped;
  const CheckpointRef from = find_checkpoint(init.from, &skipped, alone() ? nullptr : &world_);
  for (const std::string& p : skipped) progress_.note("BROKEN CHECKPOINT " + p);
  const CheckpointMeta meta = load_meta(from);
  const bool all = init.load == "all";
  check_tensors(from, Part::weights, named_weights(*params_));
  if (all) check_tensors(from, Part::optimizer, named_moments(*params_, *optimizer_));
  load_state(from, all);
  if (all) {
    load_progress(meta);
    SLUICE_CHECK(step_ < config_.train.steps, "run.init.load: all goes on after step ", step_,
                 " of ", from.folder, ", but train.steps is ", config_.train.steps);
  }
  init_ = {{"init.step", meta.step}, {"init.weights_crc32", weights_checksum(from)}};
  for (const std::string& line : differences_from(meta, config_))
    progress_.note("differs  " + line);
  progress_.note(fmt::format("init     {} of {} (step {}); this run begins at step {}",
                             all ? "weights, optimizer and position" : "weights", from.folder,
                             meta.step, step_));
}

// All of a run's state that is no tensor.
void Trainer::load_progress(const CheckpointMeta& meta) {
  const auto number = [&](const char* key) {
    const auto it = meta.integers.find(key);
    SLUICE_CHECK(it != meta.integers.end(), "the checkpoint of step ", meta.step, " has no ", key);
    return it->second;
  };
  step_ = meta.step;
  updates_ = number("optimizer.updates");
  nonfinite_ = number("nonfinite_in_a_row");
  spikes_.load(meta.numbers);
  for (const auto& [key, value] : meta.numbers)
    if (key.rfind("valid.", 0) == 0) last_valid_[key] = value;
}

}  // namespace sluice
