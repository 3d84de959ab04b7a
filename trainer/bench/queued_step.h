// trainer/bench/queued_step.h -- steps as the trainer queues them, and their times.
#pragma once

#include <vector>

#include "kernels/device/graph.h"
#include "model/autograd/plain_store.h"
#include "optim/optimizer.h"
#include "trainer/loop/config.h"
#include "trainer/loop/device.h"
#include "trainer/loop/step.h"

namespace sluice {

class QueuedStep {
 public:
  // `batch` is every micro-batch of it.
  QueuedStep(const Config& c, const Context& ctx, PlainStore& params, Optimizer& optimizer,
             StepRunner& runner, const MicroBatch& batch)
      : config_(c),
        ctx_(ctx),
        params_(params),
        optimizer_(optimizer),
        runner_(runner),
        batch_(batch),
        state_(ctx.device) {}

  void forward_backward();
  void update(StepRunner::Graphs graphs);
  void wait() const { state_.take(); }

 private:
  const Config& config_;
  Context ctx_;
  PlainStore& params_;
  Optimizer& optimizer_;
  StepRunner& runner_;
  const MicroBatch& batch_;
  DeviceState state_;
  Graph graph_;
  int64_t updates_ = 0;
};

struct Measured {
  explicit Measured(const Context& ctx) : times(ctx) {}
  OpTimes times;  // of all repeats
  std::vector<double> seconds;
  std::vector<double> queue;               // of it, what the host needed to queue the work: CUDA
  std::vector<double> eager, eager_queue;  // the same without graphs
};

void measure_steps(const Context& ctx, int64_t repeats, StepRunner& runner, QueuedStep& step,
                   Measured& out);

}  // namespace sluice
