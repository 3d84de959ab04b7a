// data/tasks/mqar.cpp -- multi-query associative recall: P pairs of a key and a value, a separator,
// then Q of the keys, each with its value: 2 (P + Q) tokens are read.
#include "data/tasks/kinds.h"

namespace sluice {

namespace {

constexpr int64_t kSeparator = 0, kFirstKey = 1;

class Mqar : public Task {
 public:
  Mqar(const MqarConfig& config, int64_t pairs, const TaskFacts& facts)
      : Task(facts), config_(config), pairs_(pairs) {}

  TaskExample example(uint64_t key, int64_t index) const override {
    Draws draws(key, index);
    const int64_t first_value = kFirstKey + config_.keys;
    const std::vector<int64_t> keys = draws.distinct(config_.keys, pairs_);
    std::vector<int64_t> values;
    ExampleWriter out;
    for (const int64_t k : keys) {
      values.push_back(draws.below(config_.values));
      out.given(kFirstKey + k);
      out.given(first_value + values.back());
    }
    out.given(kSeparator);
    for (const int64_t p : draws.distinct(pairs_, facts().answers)) {
      out.given(kFirstKey + keys[size_t(p)]);
      out.asked(first_value + values[size_t(p)]);
    }
    return out.take();
  }

 private:
  MqarConfig config_;
  int64_t pairs_;
};

}  // namespace

std::unique_ptr<Task> make_mqar(const MqarConfig& config, int64_t seq_len_tokens) {
  const int64_t P = config.pairs.value_or((seq_len_tokens / 2 + 1) / 2);
  const int64_t Q = seq_len_tokens / 2 - P;
  SLUICE_CHECK(Q >= 1 && Q <= P, "mqar: ", P, " pairs leave room for ", Q, " queries in a row of ",
               seq_len_tokens, " tokens, expected 1 to ", P,
               ": data.task.mqar.pairs from a quarter of the row to less than half of it");
  SLUICE_CHECK(P <= config.keys, "mqar: ", P, " pairs in a row of ", seq_len_tokens,
               " tokens need as many keys, data.task.mqar.keys is ", config.keys);
  const TaskFacts facts{.tokens = 2 * (P + Q), .answers = Q, .chance = 1 / double(config.values)};
  return std::make_unique<Mqar>(config, P, facts);
}

}  // namespace sluice
