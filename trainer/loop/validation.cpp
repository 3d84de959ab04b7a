// trainer/loop/validation.cpp -- sums over a set's micro-batches, in order.
#include "trainer/loop/validation.h"

#include <algorithm>
#include <cmath>

#include "kernels/tensor/buffer.h"

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

static int64_t count_right(const MicroBatch& batch, const Scores& scores) {
  const int32_t* targets = batch.targets.as<int32_t>();
  int64_t right = 0;
  for (size_t n = 0; n < scores.predicted.size(); ++n)
    right += targets[n] != kNoTarget && scores.predicted[n] == targets[n];
  return right;
}

// A sum of one number and zeros is that number, so what is added up in the end is what one rank
// would add.
SetLoss measure_set(const ValidationSet& set, MicroBatch& batch,
                    const std::function<Scores(const MicroBatch&)>& score,
                    const std::function<void(int64_t)>& done, const SetShare& share) {
  const int64_t all = set.micro_batches(), each = (all + share.ranks - 1) / share.ranks;
  const Buffer parts(DType::f64, {all, 3});  // nats, tokens, right
  for (int64_t i = 0; i < each; ++i) {
    const int64_t m = share.rank * each + i;
    set.load(std::min(m, all - 1), batch);
    const Scores scores = score(batch);
    if (done) done(i + 1);
    if (m >= all) continue;
    double* const p = parts.view().row<double>(m);
    p[0] = scores.nats;
    p[1] = double(batch.valid_tokens);
    p[2] = double(count_right(batch, scores));
  }
  if (share.sum) share.sum(parts.view());
  SetLoss sum{.text_bytes = set.text_bytes(), .chance = set.chance()};
  for (int64_t m = 0; m < all; ++m) {
    const double* const p = parts.view().row<double>(m);
    sum.nats += p[0];
    sum.tokens += int64_t(p[1]);
    sum.right += int64_t(p[2]);
  }
  return sum;
}

}  // namespace sluice
