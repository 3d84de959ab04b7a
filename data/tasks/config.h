// data/tasks/config.h -- the `data.task:` section of a config.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace sluice {

struct PalindromeConfig {
  int64_t symbols = 32;

  template <class V>
  void visit(V& v) {
    v("symbols", symbols, "a count above 1", [](int64_t x) { return x > 1; });
  }
};

struct MqarConfig {
  int64_t keys = 512;            // that the keys of an example are drawn from, each once at most
  int64_t values = 64;           // that the value of each key is drawn from
  std::optional<int64_t> pairs;  // null: a quarter of the row, or one more; queries fill the rest

  template <class V>
  void visit(V& v) {
    auto several = [](int64_t x) { return x > 1; };
    v("keys", keys, "a count above 1", several);
    v("values", values, "a count above 1", several);
    v("pairs", pairs, "null (a quarter of the row) or a count above 0",
      [](const auto& x) { return !x || *x > 0; });
  }
};

struct StackConfig {
  int64_t stacks = 64;
  int64_t items = 32;

  template <class V>
  void visit(V& v) {
    v("stacks", stacks, "a count above 0", [](int64_t x) { return x > 0; });
    v("items", items, "a count above 1", [](int64_t x) { return x > 1; });
  }
};

// Rows are examples of a task, made as they are read, instead of text from shards.
struct TaskConfig {
  std::string kind = "palindrome";  // palindrome | mqar | stack
  PalindromeConfig palindrome;
  MqarConfig mqar;
  StackConfig stack;
  std::optional<int64_t> train_examples;  // null: never one twice
  int64_t max_epochs = 1;                 // of train_examples
  int64_t validation_examples = 256;
  std::vector<int64_t> validation_lengths_tokens;  // beside data.seq_len_tokens

  template <class V>
  void visit(V& v) {
    auto positive = [](int64_t x) { return x > 0; };
    v("kind", kind, "palindrome, mqar or stack",
      [](const std::string& s) { return s == "palindrome" || s == "mqar" || s == "stack"; });
    v.section("palindrome", palindrome);
    v.section("mqar", mqar);
    v.section("stack", stack);
    v("train_examples", train_examples, "null (endless) or a count above 0",
      [](const auto& x) { return !x || *x > 0; });
    v("max_epochs", max_epochs, "a count above 0", positive);
    v("validation_examples", validation_examples, "a count above 0", positive);
    v("validation_lengths_tokens", validation_lengths_tokens, "a list of counts above 0",
      [&](const auto& x) { return std::all_of(x.begin(), x.end(), positive); });
  }
};

}  // namespace sluice
