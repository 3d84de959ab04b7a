// data/tasks/task.h -- synthetic tasks: examples whose answers can be known for sure.
//
// An example is a sequence of tokens of which some are answers. A model reads all but the last and
// is asked for each answer at the token before it; nothing else is a target. Example i is a pure
// function of (key, i), and all examples of one length have the same number of tokens and answers.
//
//   palindrome  a b c | c b a           symbols, a separator, then the reversal, which is asked for
//   mqar        k2 v0 k7 v3 | k7 v3     pairs, a separator, then some of the keys, each once, whose
//                                       values are asked for
//   stack       push s1 i4 pop s1 i4    the item of each pop is asked for; half of the operations,
//                                       rounded down, are pops, of stacks that are not empty
//
// Sources: Kimi Linear (arXiv:2510.26692), section 5.1 and figure 4; MQAR is of Zoology
// (arXiv:2312.04927).
#pragma once

#include <memory>

#include "data/tasks/config.h"

namespace sluice {

struct TaskExample {
  std::vector<int32_t> tokens;  // [T + 1]
  std::vector<bool> answer;     // [T + 1]
};

// What all examples of a task at one length have in common.
struct TaskFacts {
  int64_t tokens = 0;  // T, what a model reads: at most the row's length
  int64_t answers = 0;
  double chance = 0;  // the accuracy of guessing among what an answer can be
};

class Task {
 public:
  explicit Task(const TaskFacts& facts) : facts_(facts) {}
  virtual ~Task() = default;
  const TaskFacts& facts() const { return facts_; }
  virtual TaskExample example(uint64_t key, int64_t index) const = 0;

 private:
  TaskFacts facts_;
};

// The vocabulary, by token id, to be read by people: none has a blank. The same at every length.
std::vector<std::string> task_words(const TaskConfig& config);

// For rows of so many tokens. Throws if no example fits into them.
std::unique_ptr<Task> make_task(const TaskConfig& config, int64_t seq_len_tokens);

// "k2 v0 | k2 v0"
std::string to_text(const std::vector<std::string>& words, const std::vector<int32_t>& tokens);

// Training reads other examples with each seed, validation always the same ones.
uint64_t train_examples_key(int64_t data_seed);
uint64_t validation_examples_key();

}  // namespace sluice
