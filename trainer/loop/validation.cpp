// trainer/loop/validation.cpp -- sums over a set's micro-batches, in order.
#include "trainer/loop/validation.h"

#include <cmath>

namespace sluice {

std::vector<NamedSet> validation_sets(const DataConfig& data, int64_t micro_batch_tokens) {
  std::vector<NamedSet> sets;
  const int64_t L = data.seq_len_tokens;
  for (const auto& [name, path] : data.validation)
    sets.push_back({name, path, ValidationSet(path, L, micro_batch_tokens)});
  if (const auto& task = data.task) {
    sets.push_back({"task", "", ValidationSet(*task, L, micro_batch_tokens)});
    for (const int64_t length : task->validation_lengths_tokens)
      sets.push_back({cat("task_", length), "", ValidationSet(*task, length, micro_batch_tokens)});
  }
  return sets;
}

std::optional<double> SetLoss::bits_per_byte() const {
  if (!text_bytes) return std::nullopt;
  return nats / std::log(2.0) / double(*text_bytes);
}

SetLoss measure_set(const ValidationSet& set, MicroBatch& batch,
                    const std::function<Scores(const MicroBatch&)>& score,
                    const std::function<void(int64_t)>& done) {
  SetLoss sum{.text_bytes = set.text_bytes(), .chance = set.chance()};
  for (int64_t m = 0; m < set.micro_batches(); ++m) {
    set.load(m, batch);
    const Scores scores = score(batch);
    sum.nats += scores.nats;
    sum.tokens += batch.valid_tokens;
    const int32_t* targets = batch.targets.as<int32_t>();
    for (size_t n = 0; n < scores.predicted.size(); ++n)
      sum.right += targets[n] != kNoTarget && scores.predicted[n] == targets[n];
    if (done) done(m + 1);
  }
  return sum;
}

}  // namespace sluice
