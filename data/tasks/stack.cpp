// data/tasks/stack.cpp -- n operations of three tokens on independent stacks: 3n - 1 are read.
#include "data/tasks/kinds.h"

namespace sluice {

namespace {

constexpr int64_t kPush = 0, kPop = 1, kFirstStack = 2;

class Stack : public Task {
 public:
  Stack(const StackConfig& config, int64_t operations, const TaskFacts& facts)
      : Task(facts), config_(config), operations_(operations) {}

  // Push or pop is drawn from those that are left, and is a push while all stacks are empty: there
  // are no more pops than pushes, so none is left over.
  TaskExample example(uint64_t key, int64_t index) const override {
    Draws draws(key, index);
    const int64_t first_item = kFirstStack + config_.stacks;
    std::vector<std::vector<int64_t>> stacks(static_cast<size_t>(config_.stacks));
    std::vector<int64_t> filled;  // the stacks that are not empty
    int64_t pops = facts().answers;
    ExampleWriter out;
    for (int64_t left = operations_; left > 0; --left) {
      const bool pop = !filled.empty() && draws.below(left) < pops;
      const int64_t at = draws.below(pop ? int64_t(filled.size()) : config_.stacks);
      const int64_t id = pop ? filled[size_t(at)] : at;
      std::vector<int64_t>& stack = stacks[size_t(id)];
      out.given(pop ? kPop : kPush);
      out.given(kFirstStack + id);
      if (pop) {
        out.asked(first_item + stack.back());
        stack.pop_back();
        if (stack.empty()) filled.erase(filled.begin() + at);
        --pops;
      } else {
        if (stack.empty()) filled.push_back(id);
        stack.push_back(draws.below(config_.items));
        out.given(first_item + stack.back());
      }
    }
    return out.take();
  }

 private:
  StackConfig config_;
  int64_t operations_;
};

}  // namespace

std::unique_ptr<Task> make_stack(const StackConfig& config, int64_t seq_len_tokens) {
  const int64_t n = (seq_len_tokens + 1) / 3;
  SLUICE_CHECK(n >= 2, "a push and a pop need rows of at least 5 tokens, data.seq_len_tokens is ",
               seq_len_tokens);
  const TaskFacts facts{.tokens = 3 * n - 1, .answers = n / 2, .chance = 1 / double(config.items)};
  return std::make_unique<Stack>(config, n, facts);
}

}  // namespace sluice
