// data/tasks/kinds.h -- the kinds of tasks, and what they draw their examples with.
#pragma once

#include "data/tasks/task.h"
#include "kernels/base/check.h"
#include "kernels/tensor/rng.h"

namespace sluice {

std::unique_ptr<Task> make_palindrome(const PalindromeConfig& config, int64_t seq_len_tokens);
std::unique_ptr<Task> make_mqar(const MqarConfig& config, int64_t seq_len_tokens);
std::unique_ptr<Task> make_stack(const StackConfig& config, int64_t seq_len_tokens);

// The random numbers of one example, in order.
class Draws {
 public:
  Draws(uint64_t key, int64_t index) : key_(key), index_(uint64_t(index)) {}
  int64_t below(int64_t n) {  // uneven by n / 2^64 at most
    const auto r = philox(key_, count_++, index_);
    return int64_t((uint64_t(r[1]) << 32 | r[0]) % uint64_t(n));
  }
  // `count` of the numbers below n, each once at most, in random order.
  std::vector<int64_t> distinct(int64_t n, int64_t count) {
    std::vector<int64_t> all(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) all[size_t(i)] = i;
    for (int64_t i = 0; i < count; ++i) std::swap(all[size_t(i)], all[size_t(i + below(n - i))]);
    all.resize(size_t(count));
    return all;
  }

 private:
  uint64_t key_, index_, count_ = 0;
};

// The tokens of an example, one after the other.
class ExampleWriter {
 public:
  void given(int64_t token) { put(token, false); }
  void asked(int64_t token) { put(token, true); }
  TaskExample take() { return std::move(example_); }

 private:
  void put(int64_t token, bool answer) {
    example_.tokens.push_back(int32_t(token));
    example_.answer.push_back(answer);
  }
  TaskExample example_;
};

}  // namespace sluice
