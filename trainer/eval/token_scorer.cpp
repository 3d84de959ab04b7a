// trainer/eval/token_scorer.cpp -- a model behind StepRunner::score.
#include "trainer/eval/token_scorer.h"

namespace sluice {

ModelScorer::ModelScorer(const LoadedModel& model, ThreadPool& threads, Mode mode)
    : runner_({.mode = mode, .threads = &threads}, *model.params, *model.lm, Recompute::none, 0) {}

void ModelScorer::plan(const MicroBatch& shape) {
  arena_ = std::make_unique<Arena>(Device::cpu, runner_.plan_score(shape));
  runner_.use(*arena_);
}

}  // namespace sluice
