// trainer/eval/token_scorer.h -- micro-batches in, each token's loss and prediction out.
//
// The seam between an evaluation and a model: tests put something here that knows the answers.
#pragma once

#include <memory>

#include "trainer/loop/model_file.h"
#include "trainer/loop/step.h"

namespace sluice {

class TokenScorer {
 public:
  virtual ~TokenScorer() = default;
  virtual void plan(const MicroBatch& shape) = 0;     // of what will be scored from now on
  virtual Scores score(const MicroBatch& batch) = 0;  // valid until the next call
};

// Mode::run gives validation's digits; in Mode::batch_invariant a document's scores are a function
// of its own tokens, to the bit, whatever shares its micro-batch.
class ModelScorer : public TokenScorer {
 public:
  ModelScorer(const LoadedModel& model, ThreadPool& threads, Mode mode);
  void plan(const MicroBatch& shape) override;
  Scores score(const MicroBatch& batch) override { return runner_.score(batch); }

 private:
  StepRunner runner_;
  std::unique_ptr<Arena> arena_;
};

}  // namespace sluice
