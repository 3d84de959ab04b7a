// data/loader/task_rows.cpp -- examples as tokens and targets.
#include <algorithm>

#include "data/loader/rows.h"
#include "kernels/base/check.h"

namespace sluice {

TaskRows::TaskRows(const TaskConfig& config, int64_t seq_len_tokens, uint64_t key, int64_t count)
    : Rows(seq_len_tokens, 0), task_(make_task(config, seq_len_tokens)), key_(key), count_(count) {}

int64_t TaskRows::load(int64_t row, int64_t slot, const MicroBatch& batch,
                       std::vector<int32_t>& ends) const {
  const int64_t T = task_->facts().tokens, first = slot * L_;
  const TaskExample example = task_->example(key_, row);
  std::copy_n(example.tokens.begin(), T, batch.tokens.as<int32_t>() + first);
  int32_t* targets = batch.targets.as<int32_t>() + first;
  for (int64_t t = 0; t < T; ++t)
    targets[t] = example.answer[size_t(t) + 1] ? example.tokens[size_t(t) + 1] : kNoTarget;
  ends.push_back(int32_t(first + T));
  pad(slot, T, batch, ends);
  return valid_tokens(row);
}

}  // namespace sluice
