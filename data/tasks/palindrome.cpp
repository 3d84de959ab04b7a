// data/tasks/palindrome.cpp -- n symbols, a separator, the symbols in reverse: 2n tokens are read.
#include "data/tasks/kinds.h"

namespace sluice {

namespace {

constexpr int64_t kSeparator = 0, kFirstSymbol = 1;

class Palindrome : public Task {
 public:
  Palindrome(const PalindromeConfig& config, const TaskFacts& facts)
      : Task(facts), config_(config) {}

  TaskExample example(uint64_t key, int64_t index) const override {
    Draws draws(key, index);
    std::vector<int64_t> symbols(static_cast<size_t>(facts().answers));
    ExampleWriter out;
    for (int64_t& s : symbols) out.given(s = kFirstSymbol + draws.below(config_.symbols));
    out.given(kSeparator);
    for (auto s = symbols.rbegin(); s != symbols.rend(); ++s) out.asked(*s);
    return out.take();
  }

 private:
  PalindromeConfig config_;
};

}  // namespace

std::unique_ptr<Task> make_palindrome(const PalindromeConfig& config, int64_t seq_len_tokens) {
  const int64_t n = seq_len_tokens / 2;
  SLUICE_CHECK(n > 0, "a palindrome needs rows of at least 2 tokens, data.seq_len_tokens is ",
               seq_len_tokens);
  const TaskFacts facts{.tokens = 2 * n, .answers = n, .chance = 1 / double(config.symbols)};
  return std::make_unique<Palindrome>(config, facts);
}

}  // namespace sluice
