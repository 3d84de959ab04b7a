// trainer/loop/state.cpp -- where a run starts, and what it saves.
#include <fmt/format.h>

#include <fstream>

#include "configs/schema.h"
#include "trainer/loop/fingerprint.h"
#include "trainer/loop/model_file.h"
#include "trainer/loop/resume.h"
#include "trainer/loop/trainer.h"

namespace sluice {

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
