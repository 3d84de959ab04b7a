// trainer/loop/trainer.h -- a run from its config to its last checkpoint; the same call resumes.
#pragma once

#include <memory>
#include <optional>

#include "model/autograd/plain_store.h"
#include "optim/adamw_optimizer.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/loop/config.h"
#include "trainer/loop/step.h"
#include "trainer/metrics/jsonl.h"
#include "trainer/metrics/progress.h"

namespace sluice {

class Trainer {
 public:
  // Locks the run's folder, opens the data, builds the model, plans and takes all memory, and loads
  // the newest valid checkpoint if there is one. Prints what it does.
  explicit Trainer(const Config& config);
  void run();  // to train.steps

 private:
  struct Valid {
    std::string name;
    ValidationSet set;
    MicroBatchBuffer buffer;
  };

  void open_data();
  void plan_memory();
  void resume();
  void train_step();
  void validate();
  void save();
  void note_nonfinite();
  std::vector<NamedTensor> named_moments() const;

  Config config_;
  RunLock lock_;
  ThreadPool threads_;
  Context ctx_;
  Progress progress_;
  std::unique_ptr<Loader> loader_;
  std::vector<Valid> validation_;
  std::unique_ptr<PlainStore> params_;
  std::unique_ptr<Lm> lm_;
  std::unique_ptr<AdamWOptimizer> optimizer_;
  std::unique_ptr<StepRunner> runner_;
  std::unique_ptr<Arena> arena_;
  std::unique_ptr<MicroBatchBuffer> batch_;
  std::unique_ptr<JsonLines> metrics_;
  StepState state_;
  int64_t step_ = 0;        // done
  int64_t first_step_ = 0;  // done when this process started
  int64_t saved_step_ = -1;
  double peak_flops_ = 0;  // measured GEMM rate of all threads
  double flops_per_token_ = 0;
  double started_ = 0;  // seconds, of the first step here
  double last_loss_ = 0;
  std::map<std::string, double> last_valid_;
};

}  // namespace sluice
