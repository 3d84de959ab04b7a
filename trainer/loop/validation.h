// trainer/loop/validation.h -- the sets of a run and their losses, for the loop and for
// evaluations.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "data/loader/loader.h"
#include "trainer/loop/step.h"

namespace sluice {

struct NamedSet {
  std::string name;
  std::string path;  // empty: a task's
  ValidationSet set;
};
// Of data.validation, or of data.task: "task" and, for each further length, "task_LENGTH".
std::vector<NamedSet> validation_sets(const DataConfig& data, int64_t micro_batch_tokens);

struct SetLoss {
  double nats = 0;
  int64_t tokens = 0, right = 0;           // right: the target was the likeliest token
  std::optional<int64_t> text_bytes = {};  // of a shard
  std::optional<double> chance = {};       // of a task: the accuracy of guessing
  double loss() const { return nats / double(tokens); }
  double accuracy() const { return double(right) / double(tokens); }
  std::optional<double> bits_per_byte() const;
};

// Of a set that several ranks measure together. `sum` adds up [n] f64 on the host over all of them;
// none: there is one rank.
struct SetShare {
  int64_t rank = 0, ranks = 1;
  std::function<void(const Tensor&)> sum = {};
};

// Every token once. `batch` is of the set's make_buffer(); `done` hears of each micro-batch. A rank
// scores a block of the micro-batches, all ranks equally many (the last ones some once more, which
// does not count); the result is that of one rank, to the bit, if the scores are.
SetLoss measure_set(const ValidationSet& set, MicroBatch& batch,
                    const std::function<Scores(const MicroBatch&)>& score,
                    const std::function<void(int64_t micro_batches)>& done = {},
                    const SetShare& share = {});

}  // namespace sluice
