// data/tasks/task.cpp -- by name.
#include "data/tasks/task.h"

#include "data/tasks/kinds.h"

namespace sluice {

std::unique_ptr<Task> make_task(const TaskConfig& config, int64_t seq_len_tokens) {
  if (config.kind == "palindrome") return make_palindrome(config.palindrome, seq_len_tokens);
  if (config.kind == "mqar") return make_mqar(config.mqar, seq_len_tokens);
  SLUICE_CHECK(config.kind == "stack", "data.task.kind is ", config.kind,
               ", expected palindrome, mqar or stack");
  return make_stack(config.stack, seq_len_tokens);
}

// prefix0 ... prefix(n - 1)
static void append(std::vector<std::string>& words, const char* prefix, int64_t n) {
  for (int64_t i = 0; i < n; ++i) words.push_back(cat(prefix, i));
}

std::vector<std::string> task_words(const TaskConfig& config) {
  std::vector<std::string> words{"|"};
  if (config.kind == "palindrome") append(words, "", config.palindrome.symbols);
  if (config.kind == "mqar") {
    append(words, "k", config.mqar.keys);
    append(words, "v", config.mqar.values);
  }
  if (config.kind == "stack") {
    words = {"push", "pop"};
    append(words, "s", config.stack.stacks);
    append(words, "i", config.stack.items);
  }
  return words;
}

std::string to_text(const std::vector<std::string>& words, const std::vector<int32_t>& tokens) {
  std::string text;
  for (const int32_t id : tokens) text += (text.empty() ? "" : " ") + words.at(size_t(id));
  return text;
}

uint64_t train_examples_key(int64_t data_seed) {
  return rng_key(uint64_t(data_seed), "training examples");
}

uint64_t validation_examples_key() {
  return rng_key(0, "validation examples");
}

}  // namespace sluice
