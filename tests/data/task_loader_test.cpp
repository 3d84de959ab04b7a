// tests/data/task_loader_test.cpp -- examples as rows of batches: targets, order, supply.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "data/loader/loader.h"
#include "model/layers/layer.h"
#include "tests/support/message.h"

namespace sluice {
namespace {

using test::error_of, test::expect_contains;

constexpr int64_t kL = 17;

DataConfig task_data(const std::string& kind, int64_t length = kL) {
  DataConfig c;
  c.seq_len_tokens = length;
  c.task.emplace().kind = kind;
  return c;
}

std::vector<int32_t> values(const Tensor& t) {
  return {t.as<int32_t>(), t.as<int32_t>() + t.numel()};
}

// The tokens of each row, of all micro-batches of steps from .. from + steps - 1.
std::vector<std::vector<int32_t>> rows_of(Loader& loader, int64_t from, int64_t steps,
                                          int64_t L = kL) {
  std::vector<std::vector<int32_t>> out;
  MicroBatchBuffer buffer = loader.make_buffer();
  for (int64_t step = from; step < from + steps; ++step)
    for (int64_t m = 0; m < loader.micro_batches(); ++m) {
      loader.load(step, m, buffer.batch());
      const auto t = values(buffer.batch().tokens), y = values(buffer.batch().targets);
      for (size_t at = 0; at < t.size(); at += size_t(L)) {
        const auto begin = int64_t(at), end = int64_t(at) + L;
        if (std::any_of(y.begin() + begin, y.begin() + end, [](int32_t x) { return x >= 0; }))
          out.emplace_back(t.begin() + begin, t.begin() + end);
      }
    }
  return out;
}

TEST(TaskLoader, RowsAreExamplesInOrder) {
  for (const char* kind : {"palindrome", "mqar", "stack"})
    for (const int64_t length : {16, 17, 18, 19}) {
      const DataConfig c = task_data(kind, length);
      const auto task = make_task(*c.task, length);
      const int64_t T = task->facts().tokens;
      Loader loader(c, 6 * length, 3 * length);
      MicroBatchBuffer buffer = loader.make_buffer();
      MicroBatch& b = buffer.batch();
      EXPECT_EQ(loader.valid_tokens(1), 6 * task->facts().answers);
      loader.load(1, 1, b);  // rows 9 to 11
      EXPECT_EQ(b.valid_tokens, 3 * task->facts().answers);
      check_cu_seqlens({}, b.cu_seqlens, 3 * length);
      std::set<int32_t> cu{0};
      for (int32_t slot = 0; slot < 3; ++slot) {
        const TaskExample e = task->example(train_examples_key(c.seed), 9 + slot);
        for (int64_t t = 0; t < length; ++t) {
          const int32_t token = b.tokens.as<int32_t>()[slot * length + t];
          const int32_t target = b.targets.as<int32_t>()[slot * length + t];
          EXPECT_TRUE(t >= T || token == e.tokens[size_t(t)]);
          const bool asked = t < T && e.answer[size_t(t) + 1];
          EXPECT_EQ(target, asked ? e.tokens[size_t(t) + 1] : kNoTarget);
        }
        cu.insert(int32_t(slot * length + T));
        cu.insert(int32_t((slot + 1) * length));
      }
      const auto got = values(b.cu_seqlens);
      EXPECT_EQ(std::set<int32_t>(got.begin(), got.end()), cu);
    }
}

TEST(TaskLoader, EndlessExamplesDoNotRepeat) {
  Loader loader(task_data("palindrome", 32), 8 * 32, 4 * 32);
  loader.check_supply(int64_t(1) << 50);
  EXPECT_EQ(loader.epochs(1000), 0);
  const auto rows = rows_of(loader, 0, 50, 32);
  EXPECT_EQ(std::set(rows.begin(), rows.end()).size(), 400u);
  const auto later = rows_of(loader, int64_t(1) << 40, 1, 32);
  EXPECT_EQ(later.size(), 8u);
  Loader reseeded = [] {
    DataConfig c = task_data("palindrome", 32);
    c.seed = 2;
    return Loader(c, 8 * 32, 4 * 32);
  }();
  for (const auto& row : rows_of(reseeded, 0, 5, 32))
    EXPECT_EQ(std::count(rows.begin(), rows.end(), row), 0);
}

TEST(TaskLoader, AFiniteSetIsReadInEpochs) {
  DataConfig c = task_data("palindrome");
  c.task->train_examples = 12;
  c.task->max_epochs = 3;
  Loader loader(c, 4 * kL, 2 * kL);
  loader.check_supply(9);
  expect_contains(error_of([&] { loader.check_supply(10); }),
                  {"data.task (palindrome) has 12 rows", "3 times", "40 rows, 4 epochs"});
  EXPECT_DOUBLE_EQ(loader.epochs(6), 2);
  std::vector<std::vector<std::vector<int32_t>>> epochs;
  for (int64_t e = 0; e < 3; ++e) epochs.push_back(rows_of(loader, 3 * e, 3));
  EXPECT_NE(epochs[0], epochs[1]);
  for (auto& e : epochs) std::sort(e.begin(), e.end());
  EXPECT_EQ(epochs[0], epochs[1]);
  EXPECT_EQ(epochs[0], epochs[2]);
  EXPECT_EQ(std::set(epochs[0].begin(), epochs[0].end()).size(), 12u);
  MicroBatchBuffer buffer = loader.make_buffer();
  expect_contains(error_of([&] { loader.load(9, 0, buffer.batch()); }), {"data.task", "3 times"});
}

TEST(TaskLoader, RanksTogetherSeeWhatOneSees) {
  const DataConfig c = task_data("stack", 24);
  Loader alone(c, 7 * 24, 2 * 24);
  std::vector<Loader> parts;
  for (int r = 0; r < 3; ++r) parts.emplace_back(c, 7 * 24, 2 * 24, r, 3);
  for (int64_t step = 0; step < 4; ++step) {
    std::vector<std::vector<int32_t>> together;
    for (Loader& part : parts) {
      EXPECT_EQ(part.valid_tokens(step), alone.valid_tokens(step));
      for (auto& row : rows_of(part, step, 1, 24)) together.push_back(row);
    }
    EXPECT_EQ(together, rows_of(alone, step, 1, 24));
  }
}

// The same whatever is trained on, and not what is trained on.
TEST(TaskLoader, ValidationExamplesAreFixed) {
  DataConfig c = task_data("mqar", 32);
  c.task->validation_examples = 10;
  const ValidationSet set(*c.task, 32, 4 * 32);
  EXPECT_EQ(set.micro_batches(), 3);
  EXPECT_DOUBLE_EQ(*set.chance(), 1.0 / 64);
  EXPECT_FALSE(set.text_bytes().has_value());
  EXPECT_EQ(set.shard_info(), nullptr);
  const auto task = make_task(*c.task, 32);
  MicroBatchBuffer buffer = set.make_buffer();
  Loader loader(c, 500 * 32, 32);
  const auto trained = rows_of(loader, 0, 1, 32);
  int64_t valid = 0;
  for (int64_t m = 0; m < 3; ++m) {
    set.load(m, buffer.batch());
    check_cu_seqlens({}, buffer.batch().cu_seqlens, 4 * 32);
    valid += buffer.batch().valid_tokens;
    const auto t = values(buffer.batch().tokens);
    for (int64_t slot = 0; slot < 4 && 4 * m + slot < 10; ++slot) {
      const std::vector<int32_t> row(t.begin() + slot * 32, t.begin() + (slot + 1) * 32);
      const TaskExample e = task->example(validation_examples_key(), 4 * m + slot);
      EXPECT_TRUE(std::equal(row.begin(), row.end(), e.tokens.begin()));
      EXPECT_EQ(std::count(trained.begin(), trained.end(), row), 0);
    }
  }
  EXPECT_EQ(valid, 10 * task->facts().answers);
  EXPECT_EQ(ValidationSet(*c.task, 1000, 4 * 32).micro_batches(), 10) << "a row at least";
}

}  // namespace
}  // namespace sluice
