// trainer/plan/plan.h -- a run on N ranks before it runs: memory, what goes over the wire, and how
// long a step takes. Nothing of the model is allocated.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "trainer/loop/memory.h"
#include "trainer/plan/wire.h"
#include "trainer/plan/work.h"

namespace sluice {

struct StepTime {
  std::vector<Seconds> compute;  // of the rank's micro-batches and its update
  double beside = 0;             // of collectives that run beside compute, if they may
  double exposed = 0;            // of those that do not
  double seconds = 0;            // of the step
  double mfu = 0;                // of ComputeFigures::gemm_flops
};

struct RunPlan {
  MeshShape mesh;
  std::string device;
  int64_t parameters = 0, active_parameters = 0;
  int64_t micro_batches = 0, micro_batch_tokens = 0, batch_tokens = 0;
  MemoryPlan memory;  // of rank 0
  std::vector<WireRow> wire;
  std::optional<Figures> figures;
  StepTime time;  // if there are figures
};

// What a rank of `ranks` takes, sends and waits for.
RunPlan plan_run(const Config& config, int64_t ranks, const std::optional<Figures>& figures,
                 int64_t rank = 0);

std::string to_string(const RunPlan& plan);

}  // namespace sluice
