// tests/data/tasks_test.cpp -- every example against the rules of its task, read off its text.
#include "data/tasks/task.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>
#include <sstream>

#include "configs/schema.h"
#include "kernels/tensor/rng.h"
#include "tests/support/message.h"

namespace sluice {
namespace {

using test::error_of, test::expect_contains;

TaskConfig task_of(const std::string& kind, const std::vector<std::string>& set = {}) {
  return config::load_string<TaskConfig>("kind: " + kind, "test", set);
}

// An example as its words, and whether each is asked for.
struct Read {
  Read(const TaskConfig& config, int64_t length, int64_t index, uint64_t key = 5) {
    const auto task = make_task(config, length);
    const TaskExample e = task->example(key, index);
    std::istringstream in(to_text(task_words(config), e.tokens));
    for (std::string w; in >> w;) words.push_back(w);
    asked = e.answer;
    EXPECT_EQ(words.size(), size_t(task->facts().tokens) + 1);
    EXPECT_EQ(asked.size(), words.size());
    EXPECT_LE(task->facts().tokens, length);
    EXPECT_EQ(std::count(asked.begin(), asked.end(), true), task->facts().answers);
    EXPECT_FALSE(asked[0]) << "nothing is before it";
  }
  std::vector<std::string> words;
  std::vector<bool> asked;
};

TEST(Tasks, PalindromesReadTheSameBackwards) {
  for (const int64_t length : {2, 3, 16, 63, 64})
    for (int64_t i = 0; i < 50; ++i) {
      const Read r(task_of("palindrome"), length, i);
      const size_t n = size_t(length) / 2;
      ASSERT_EQ(r.words.size(), 2 * n + 1);
      EXPECT_EQ(r.words[n], "|");
      EXPECT_TRUE(std::equal(r.words.begin(), r.words.end(), r.words.rbegin()));
      EXPECT_EQ(std::count(r.words.begin(), r.words.end(), "|"), 1);
      for (size_t t = 0; t < r.words.size(); ++t) EXPECT_EQ(r.asked[t], t > n);
    }
}

TEST(Tasks, MqarAsksForTheValueOfEachKeyOnce) {
  for (const std::string pairs : {"null", "11", "14"})
    for (const int64_t length : {32, 33, 34, 40})
      for (int64_t i = 0; i < 50; ++i) {
        const Read r(task_of("mqar", {"mqar.keys=20", "mqar.values=5", "mqar.pairs=" + pairs}),
                     length, i);
        std::map<std::string, std::string> value_of;
        size_t t = 0;
        for (; r.words[t] != "|"; t += 2) {
          EXPECT_EQ(r.words[t][0], 'k');
          EXPECT_EQ(r.words[t + 1][0], 'v');
          EXPECT_FALSE(r.asked[t] || r.asked[t + 1]);
          EXPECT_TRUE(value_of.emplace(r.words[t], r.words[t + 1]).second) << "a key twice";
        }
        EXPECT_EQ(int64_t(value_of.size()), pairs == "null" ? (length + 2) / 4 : std::stoll(pairs));
        EXPECT_FALSE(r.asked[t]);
        ASSERT_EQ(r.words.size() % 2, 1u);
        for (++t; t < r.words.size(); t += 2) {
          const auto it = value_of.find(r.words[t]);
          ASSERT_NE(it, value_of.end()) << "not given, or asked twice";
          EXPECT_EQ(r.words[t + 1], it->second);
          EXPECT_TRUE(!r.asked[t] && r.asked[t + 1]);
          value_of.erase(it);
        }
      }
}

TEST(Tasks, StacksGiveWhatWasPushedLast) {
  size_t deepest = 0;
  for (const std::string stacks : {"1", "3", "64"})
    for (const int64_t length : {5, 6, 7, 64, 255, 256})
      for (int64_t i = 0; i < 20; ++i) {
        const Read r(task_of("stack", {"stack.stacks=" + stacks, "stack.items=9"}), length, i);
        const int64_t operations = (length + 1) / 3;
        ASSERT_EQ(int64_t(r.words.size()), 3 * operations);
        std::map<std::string, std::vector<std::string>> content;
        int64_t pops = 0;
        for (size_t t = 0; t < r.words.size(); t += 3) {
          const bool pop = r.words[t] == "pop";
          EXPECT_EQ(r.words[t], pop ? "pop" : "push");
          EXPECT_EQ(r.words[t + 1][0], 's');
          EXPECT_EQ(r.words[t + 2][0], 'i');
          EXPECT_TRUE(!r.asked[t] && !r.asked[t + 1]);
          EXPECT_EQ(r.asked[t + 2], pop);
          std::vector<std::string>& stack = content[r.words[t + 1]];
          if (pop) {
            ASSERT_FALSE(stack.empty());
            EXPECT_EQ(r.words[t + 2], stack.back());
            stack.pop_back();
            ++pops;
          } else {
            stack.push_back(r.words[t + 2]);
            deepest = std::max(deepest, stack.size());
          }
        }
        EXPECT_EQ(pops, operations / 2);
      }
  EXPECT_GT(deepest, 4u);
}

// The stream of examples must not change: runs that are resumed, and figures, rest on it.
TEST(Tasks, ExamplesAreTheseForEver) {
  const auto text = [](const TaskConfig& c, int64_t length) {
    return to_text(task_words(c), make_task(c, length)->example(train_examples_key(1), 0).tokens);
  };
  EXPECT_EQ(text(task_of("palindrome"), 16), "14 17 16 6 4 10 6 26 | 26 6 10 4 6 16 17 14");
  EXPECT_EQ(text(task_of("mqar"), 16),
            "k46 v4 k422 v42 k396 v38 k103 v26 | k422 v42 k103 v26 k396 v38 k46 v4");
  EXPECT_EQ(text(task_of("stack", {"stack.stacks=3"}), 20),
            "push s0 i17 push s0 i4 pop s0 i4 push s0 i23 pop s0 i23 pop s0 i17 push s2 i6");
}

TEST(Tasks, ExamplesDifferByKeyAndIndex) {
  for (const char* kind : {"palindrome", "mqar", "stack"}) {
    const auto task = make_task(task_of(kind), 64);
    std::set<std::vector<int32_t>> seen;
    for (int64_t i = 0; i < 100; ++i)
      for (const uint64_t key :
           {train_examples_key(1), train_examples_key(2), validation_examples_key()})
        seen.insert(task->example(key, i).tokens);
    EXPECT_EQ(seen.size(), 300u) << kind;
    EXPECT_EQ(task->example(7, 3).tokens, task->example(7, 3).tokens);
  }
}

// Chi-square over n cells has mean n - 1 and deviation sqrt(2 (n - 1)); six deviations above is
// rarer than 1e-6. Answers of one example are nearly independent here.
TEST(Tasks, AnswersAreUniform) {
  for (const char* kind : {"palindrome", "mqar", "stack"}) {
    const TaskConfig config =
        task_of(kind, {"palindrome.symbols=8", "mqar.values=8", "stack.items=8"});
    const auto task = make_task(config, 64);
    EXPECT_DOUBLE_EQ(task->facts().chance, 1.0 / 8);
    std::map<int32_t, double> count;
    double all = 0;
    for (int64_t i = 0; i < 400; ++i) {
      const TaskExample e = task->example(11, i);
      for (size_t t = 0; t < e.tokens.size(); ++t)
        if (e.answer[t]) {
          ++count[e.tokens[t]];
          ++all;
        }
    }
    EXPECT_EQ(count.size(), 8u) << kind;
    double chi = 0;
    for (const auto& [id, n] : count) chi += (n - all / 8) * (n - all / 8) / (all / 8);
    EXPECT_LT(chi, 7 + 6 * std::sqrt(14.0)) << kind;
  }
}

// Which of the pairs is asked for first tells nothing, nor does the stack that is used first.
TEST(Tasks, PlacesAreUniform) {
  const auto mqar = make_task(task_of("mqar"), 32);  // 8 pairs
  const auto stack = make_task(task_of("stack", {"stack.stacks=8"}), 32);
  std::map<int64_t, double> first_query, first_stack;
  for (int64_t i = 0; i < 800; ++i) {
    const std::vector<int32_t> t = mqar->example(3, i).tokens;
    first_query[std::find(t.begin(), t.begin() + 16, t[17]) - t.begin()] += 1;
    first_stack[stack->example(3, i).tokens[1]] += 1;
  }
  for (const auto& count : {first_query, first_stack}) {
    EXPECT_EQ(count.size(), 8u);
    double chi = 0;
    for (const auto& [place, n] : count) chi += (n - 100) * (n - 100) / 100;
    EXPECT_LT(chi, 7 + 6 * std::sqrt(14.0));
  }
}

TEST(Tasks, WhatDoesNotFitIsAnError) {
  expect_contains(error_of([] { make_task(task_of("palindrome"), 1); }), {"2 tokens", "is 1"});
  expect_contains(error_of([] { make_task(task_of("stack"), 4); }), {"5 tokens", "is 4"});
  expect_contains(error_of([] { make_task(task_of("mqar"), 3); }), {"1 pairs", "0 queries"});
  expect_contains(error_of([] { make_task(task_of("mqar", {"mqar.pairs=7"}), 32); }),
                  {"7 pairs", "9 queries", "32 tokens", "data.task.mqar.pairs"});
  expect_contains(error_of([] { make_task(task_of("mqar", {"mqar.pairs=16"}), 32); }),
                  {"16 pairs", "0 queries"});
  expect_contains(error_of([] { make_task(task_of("mqar", {"mqar.keys=7"}), 32); }),
                  {"8 pairs", "data.task.mqar.keys is 7"});
  expect_contains(error_of([] { task_of("reverse"); }),
                  {"kind: expected palindrome, mqar or stack, got \"reverse\""});
  expect_contains(error_of([] {
                    task_of("stack", {"stack.items=1", "max_epochs=0"});
                  }),
                  {"stack.items: expected a count above 1", "max_epochs: expected"});
}

}  // namespace
}  // namespace sluice
