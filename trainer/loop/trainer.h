// trainer/loop/trainer.h -- a run from its config to its last checkpoint; the same call resumes.
#pragma once

#include <memory>
#include <optional>

#include "data/loader/prefetch.h"
#include "data/tokenizer/tokenizer.h"
#include "model/autograd/plain_store.h"
#include "optim/optimizer.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/writer.h"
#include "trainer/loop/config.h"
#include "trainer/loop/device.h"
#include "trainer/loop/exit_code.h"
#include "trainer/loop/memory.h"
#include "trainer/loop/profile.h"
#include "trainer/loop/signals.h"
#include "trainer/loop/spikes.h"
#include "trainer/loop/stages.h"
#include "trainer/loop/step.h"
#include "trainer/loop/step_results.h"
#include "trainer/metrics/metrics.h"
#include "trainer/metrics/progress.h"
#include "trainer/parallel/mesh.h"

namespace sluice {

class Trainer {
 public:
  enum class Folder : uint8_t { any, fresh };  // fresh: one that a run has used is refused
  enum class Wait : uint8_t { no, yes };       // until a save is on the disk, or has failed

  // Locks the run's folder, opens the data, builds the model, plans and takes all memory, and loads
  // the newest valid checkpoint if there is one, or else what run.init names. Prints what it does.
  // `world` are the ranks of the run, which all do the same with the same config; null: one rank.
  explicit Trainer(const Config& config, Folder folder = Folder::any, Comm* world = nullptr);

  void profile(const ProfileRequest& request) { profile_.emplace(request, world_, ctx_.device); }
  ExitCode run();  // to train.steps, or until a signal or train.nonfinite stops it

  // For tests that look into a run, or put a fault in it: one step, done and reported.
  void train_step();
  void save(Wait wait = Wait::yes);
  void without_graphs();  // queue every op of every step
  int64_t step() const { return step_; }
  ParamStore& params() { return *params_; }
  const Mesh& mesh() const { return mesh_; }
  const MemoryPlan& memory() const { return memory_; }   // what was planned
  int64_t arena_peak() const { return arena_->peak(); }  // what was used

 private:
  struct Valid {
    std::string name;
    ValidationSet set;
    MicroBatchBuffer buffer;
  };

  struct OpenPart {  // of the run: what reads one DataPart
    DataPart is;
    std::unique_ptr<Loader> loader;       // read by the thread of
    std::unique_ptr<Prefetcher> batches;  // this one
    std::vector<Valid> validation;
    double flops_per_token = 0;
  };
  // A step that is queued, and then what it did.
  struct Outcome {
    int64_t step = 0;         // counted from 0
    StepState state{};        // as the host has read it
    bool judged = false;      // what follows was found out
    std::string skipped{};    // why nothing was changed; empty: it was
    std::string spike{};      // what was out of line
    double data_wait_ms = 0;  // for micro-batches that were not there yet
  };

  void open_data();
  OpenPart open_part(const DataPart& part, const std::string& tokenizer) const;
  OpenPart& part_of(int64_t step);  // that reads step `step`, counted from 0
  void take_memory();
  void describe_machine();
  void refuse_used_folder() const;
  void start();
  void resume(const CheckpointRef& from);
  void start_from(const InitConfig& init);
  void load_state(const CheckpointRef& from, bool optimizer);
  void load_progress(const CheckpointMeta& meta);

  void enter_part();
  void forward_backward();
  void update();
  void change_model();
  enum class Gradients : uint8_t { kept, lost };
  Gradients settle();
  bool ended_by_nonfinite() const;
  Gradients judge(Outcome& outcome);
  void report(const Outcome& outcome);
  std::string find_nonfinite(int64_t step);
  // What ranks tell each other; nothing where there is one.
  bool alone() const { return mesh_.shape().ranks() == 1; }
  bool speaks() const { return mesh_.rank() == 0; }  // for all ranks: locks, prints, writes metrics
  void check_same_run();
  void sum_over_ranks();
  std::function<void(const Tensor&)> norm_over_ranks();
  void sum_on_host(const Tensor& t, const char* what);  // [n] f64
  std::string first_of_ranks(const NonfiniteFinding& mine);
  int stop_signal() const;
  void note_profile();
  void validate();
  void report_layers();
  ExitCode stop_for(int signal);
  ExitCode stop_nonfinite();
  void open_saves();
  void report_saves(Wait wait);

  Config config_;
  NullComm nobody_else_;
  Comm& world_;
  const Mesh mesh_;
  StopSignals signals_;
  const std::unique_ptr<RunLock> lock_;  // of rank 0
  ThreadPool threads_;
  Context ctx_;
  DeviceHandles handles_;  // that ctx_ points to
  Progress progress_;
  std::vector<OpenPart> parts_;
  std::vector<SchedulePart> schedule_;
  std::unique_ptr<ParamStore> params_;
  std::unique_ptr<Lm> lm_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<StepStats> stats_;
  std::unique_ptr<StepRunner> runner_;
  std::unique_ptr<Arena> arena_;
  MemoryPlan memory_;
  std::unique_ptr<Metrics> metrics_;
  std::unique_ptr<CheckpointWriter> saves_;  // after what it reads
  std::unique_ptr<StepResults> results_;
  DeviceState state_{ctx_.device};
  std::optional<StepProfile> profile_;  // of this start
  std::optional<Outcome> pending_;      // the step that is queued and not yet settled
  Graph change_;                        // what changes the model, captured when it ran once
  bool changed_before_ = false;
  bool graphs_ = ctx_.device == Device::cuda && alone();
  double data_wait_ms_ = 0;  // of the step's micro-batches
  SpikeDetector spikes_;
  int64_t step_ = 0;             // queued, skipped ones too: the position in data and schedule
  int64_t updates_ = 0;          // of them, those that changed the model: Adam's step
  int64_t nonfinite_ = 0;        // steps in a row, until now
  std::string nonfinite_where_;  // the first bad number of the last such step
  int64_t started_at_ = 0;       // done when run() began
  int64_t first_step_ = 0;       // done when the rate's clock started
  int64_t saved_step_ = -1;      // of the newest checkpoint that is complete
  int64_t failed_saves_ = 0;     // since then
  double peak_flops_ = 0;        // measured GEMM rate of all threads
  double started_ = 0;           // seconds, when first_step_ steps were done
  double last_loss_ = 0;
  std::map<std::string, double> last_valid_;
  std::map<std::string, int64_t> init_;  // what run.init gave: step and checksum, for checkpoints
};

}  // namespace sluice
