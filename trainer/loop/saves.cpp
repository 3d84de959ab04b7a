// trainer/loop/saves.cpp -- the checkpoints of a run: what is in one, and what is said about it.
//
// A save that fails does not stop the run, the next one may find room again: it is shown, goes into
// the metrics, and the next interval tries again. kMaxFailures in a row stop the run, and so does a
// failure of the last save of all.
#include <fmt/format.h>

#include "configs/schema.h"
#include "trainer/loop/fingerprint.h"
#include "trainer/loop/model_file.h"
#include "trainer/loop/trainer.h"

namespace sluice {

static constexpr int64_t kMaxFailures = 3;

void Trainer::open_saves() {
  const CheckpointConfig& c = config_.checkpoint;
  saves_ = std::make_unique<CheckpointWriter>(
      config_.run.dir, Retention{c.keep_last, c.keep_every_steps},
      c.async ? CheckpointWriter::Mode::async : CheckpointWriter::Mode::sync,
      named_weights(*params_), named_moments(*params_, *optimizer_), &world_);
  if (c.async)
    progress_.note(fmt::format("memory   snapshot for asynchronous checkpoints {:.1f} MiB",
                               double(saves_->snapshot_bytes()) / (1 << 20)));
}

void Trainer::save(Wait wait) {
  CheckpointMeta meta{.step = step_,
                      .config_yaml = config::print(config_),
                      .fingerprint = fingerprint(ctx_, mesh_.shape()),
                      .integers = {{"run.seed", config_.run.seed},
                                   {"data.seed", config_.data.seed},
                                   {"tokens", step_ * config_.train.batch_tokens},
                                   {"optimizer.updates", updates_},
                                   {"nonfinite_in_a_row", nonfinite_}},
                      .numbers = last_valid_};
  meta.integers.insert(init_.begin(), init_.end());
  meta.numbers["loss"] = last_loss_;
  spikes_.save(meta.numbers);
  saves_->save(meta);
  report_saves(wait);
}

// Call it after every step, and with Wait::yes before a run ends for whatever reason.
void Trainer::report_saves(Wait wait) {
  for (const SaveReport& r : wait == Wait::yes ? saves_->finish() : saves_->collect()) {
    metrics_->write("checkpoint", step_,
                    {{"saved_step", double(r.step)},
                     {"failed", r.error.empty() ? 0.0 : 1.0},
                     {"bytes", double(r.bytes)},
                     {"blocked_seconds", r.blocked_seconds},
                     {"waited_seconds", r.waited_seconds},
                     {"write_seconds", r.write_seconds}});
    for (const std::string& p : r.problems) progress_.note("checkpoint: " + p);
    if (r.error.empty()) {
      saved_step_ = r.step;
      failed_saves_ = 0;
      progress_.note(fmt::format("saved    {}  ({:.1f} MiB in {:.2f} s, training waited {:.0f} ms)",
                                 r.folder, double(r.bytes) / (1 << 20), r.write_seconds,
                                 1e3 * r.blocked_seconds));
      metrics_->note("save", step_, {{"checkpoint", r.folder}});
      continue;
    }
    ++failed_saves_;
    progress_.note(
        fmt::format("SAVE FAILED  step {}, {} in a row: {}", r.step, failed_saves_, r.error));
    metrics_->note("save failed", step_, {{"why", r.error}});
  }
  if (failed_saves_ >= kMaxFailures || (wait == Wait::yes && failed_saves_ > 0))
    throw ExitError(
        ExitCode::checkpoint,
        cat(config_.run.dir, ": ", failed_saves_, " saves in a row failed (above); ",
            saved_step_ < 0 ? std::string("there is no checkpoint")
                            : cat("the newest checkpoint is that of step ", saved_step_)));
}

}  // namespace sluice
