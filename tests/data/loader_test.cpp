// tests/data/loader_test.cpp -- the order of rows, what is in them, and who gets which.
#include "data/loader/loader.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include "data/loader/permutation.h"
#include "kernels/tensor/context.h"
#include "tests/data/shard_files.h"

namespace sluice {
namespace {

using namespace test;

constexpr int64_t kL = 16;

std::vector<int32_t> values(const Tensor& t) {
  return {t.as<int32_t>(), t.as<int32_t>() + t.numel()};
}

TEST(Permutation, IsABijection) {
  for (const int64_t n : {1, 2, 3, 4, 5, 16, 17, 63, 64, 65, 1000, 4096, 4097})
    for (uint64_t key = 0; key < 3; ++key) {
      std::vector<int> seen(size_t(n), 0);
      for (int64_t i = 0; i < n; ++i) ++seen.at(size_t(permuted(key, n, i)));
      EXPECT_EQ(seen, std::vector<int>(size_t(n), 1)) << n;
    }
}

// Every element comes first about equally often: chi-square over n cells of 200 n keys has mean
// n - 1 and deviation sqrt(2 (n - 1)); six deviations above is one in 1e6 at the least.
TEST(Permutation, FirstElementIsUniform) {
  for (const int64_t n : {2, 3, 4, 5, 10, 100}) {
    std::vector<double> count(size_t(n), 0);
    for (int64_t key = 0; key < 200 * n; ++key)
      ++count[size_t(permuted(rng_key(uint64_t(key), "k"), n, 0))];
    double chi = 0;
    for (const double c : count) chi += (c - 200) * (c - 200) / 200;
    EXPECT_LT(chi, double(n - 1) + 6 * std::sqrt(2.0 * double(n - 1)) + 6) << n;
  }
}

// A shard whose rows can be told apart: document lengths and ids are random, and a row is known by
// its tokens.
class LoaderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const auto& [name, count] : std::map<std::string, int64_t>{{"a", 200}, {"b", 90}}) {
      Documents documents = make_documents(count, 40, 30000);
      if (name == "b")
        for (auto& d : documents)
          for (auto& t : d) t = t / 2 + 15000;  // tells its tokens from most of a's
      write_shard(folder_ / (name + ".h5"), info_of(30000), documents);
      documents_[name] = documents;
      stream_[name] = stream_of(documents, 29999);
    }
  }
  DataConfig config(const std::vector<DataSource>& sources, int64_t seed = 1) const {
    DataConfig c;
    c.seed = seed;
    c.train = sources;
    c.seq_len_tokens = kL;
    return c;
  }
  DataSource source(const std::string& name, double weight = 1, int64_t max_epochs = 1000) const {
    return {folder_ / (name + ".h5"), weight, max_epochs};
  }
  int64_t full_rows(const std::string& name) const { return int64_t(stream_.at(name).size()) / kL; }
  // The row of this stream with these tokens, or -1.
  int64_t row_of(const std::string& name, const int32_t* tokens) const {
    const std::vector<int32_t>& s = stream_.at(name);
    for (int64_t r = 0; r < full_rows(name); ++r)
      if (std::equal(tokens, tokens + kL, s.begin() + r * kL)) return r;
    return -1;
  }

  const Folder folder_;
  std::map<std::string, Documents> documents_;
  std::map<std::string, std::vector<int32_t>> stream_;
};

// All rows of `steps` steps in the order of the global batch, empty ones left out.
std::vector<std::vector<int32_t>> rows_of(Loader& loader, int64_t from, int64_t steps) {
  std::vector<std::vector<int32_t>> out;
  MicroBatchBuffer buffer = loader.make_buffer();
  for (int64_t step = from; step < from + steps; ++step)
    for (int64_t m = 0; m < loader.micro_batches(); ++m) {
      loader.load(step, m, buffer.batch());
      const auto tokens = values(buffer.batch().tokens), targets = values(buffer.batch().targets);
      for (size_t at = 0; at < tokens.size(); at += size_t(kL))
        if (targets[at] != kNoTarget)
          out.emplace_back(tokens.begin() + int64_t(at), tokens.begin() + int64_t(at) + kL);
    }
  return out;
}

TEST_F(LoaderTest, EachEpochIsAPermutationOfTheRows) {
  Loader loader(config({source("a")}), kL, kL);
  const int64_t rows = full_rows("a");
  std::vector<std::vector<int64_t>> orders;
  for (int64_t epoch = 0; epoch < 3; ++epoch) {
    std::vector<int64_t>& order = orders.emplace_back();
    for (const auto& row : rows_of(loader, epoch * rows, rows))
      order.push_back(row_of("a", row.data()));
    std::vector<int64_t> sorted = order, all(static_cast<size_t>(rows));
    std::sort(sorted.begin(), sorted.end());
    std::iota(all.begin(), all.end(), 0);
    EXPECT_EQ(sorted, all) << "epoch " << epoch;
    EXPECT_NE(order, all) << "file order";
  }
  EXPECT_NE(orders[0], orders[1]);
  EXPECT_NE(orders[1], orders[2]);
}

TEST_F(LoaderTest, BatchesArePureFunctionsOfSeedAndStep) {
  const DataConfig c = config({source("a", 2), source("b", 1)});
  Loader forward(c, 8 * kL, 4 * kL), other(c, 8 * kL, 4 * kL);
  const auto first = rows_of(forward, 0, 20);
  EXPECT_EQ(rows_of(forward, 0, 20), first) << "asked a second time";
  const auto tail = rows_of(other, 13, 7);  // resumed
  EXPECT_TRUE(std::equal(tail.begin(), tail.end(), first.begin() + 13 * 8));
  other.check_supply(40);
  other.epochs(30);
  EXPECT_EQ(rows_of(other, 0, 20), first) << "after looking ahead";
  Loader reseeded(config(c.train, 2), 8 * kL, 4 * kL);
  EXPECT_NE(rows_of(reseeded, 0, 20), first);
  Loader other_micro(c, 8 * kL, 2 * kL);
  EXPECT_EQ(rows_of(other_micro, 0, 20), first);
}

// 7 rows by 3 ranks is 3 + 3 + 1: the last rank has padding, and as many micro-batches.
TEST_F(LoaderTest, RanksTogetherSeeWhatOneSees) {
  const DataConfig c = config({source("a", 2), source("b", 1)});
  for (const int64_t batch_rows : {1, 7, 8})
    for (const int ranks : {1, 2, 3, 8}) {
      SCOPED_TRACE(cat(batch_rows, " rows by ", ranks));
      Loader alone(c, batch_rows * kL, 2 * kL);
      std::vector<Loader> parts;
      for (int r = 0; r < ranks; ++r) parts.emplace_back(c, batch_rows * kL, 2 * kL, r, ranks);
      for (int64_t step = 0; step < 5; ++step) {
        std::vector<std::vector<int32_t>> together;
        for (Loader& part : parts) {
          EXPECT_EQ(part.micro_batches(), parts[0].micro_batches());
          EXPECT_EQ(part.valid_tokens(step), batch_rows * kL);
          for (auto& row : rows_of(part, step, 1)) together.push_back(row);
        }
        EXPECT_EQ(together, rows_of(alone, step, 1));
      }
    }
}

// Written from the definition, document by document.
TEST_F(LoaderTest, TargetsAndBoundaries) {
  std::vector<int32_t> targets;
  std::set<int64_t> starts;
  for (const auto& d : documents_["a"]) {
    starts.insert(int64_t(targets.size()));
    targets.insert(targets.end(), d.begin(), d.end());
    targets.push_back(29999);  // after the last token of a document
  }
  Loader loader(config({source("a")}), 4 * kL, 2 * kL);
  MicroBatchBuffer buffer = loader.make_buffer();
  const Context ctx;
  int64_t ends_at_cuts = 0, cuts_inside = 0;
  for (int64_t step = 0; step < full_rows("a") / 4; ++step)
    for (int64_t m = 0; m < 2; ++m) {
      MicroBatch& b = buffer.batch();
      loader.load(step, m, b);
      EXPECT_EQ(b.valid_tokens, 2 * kL);
      check_cu_seqlens(ctx, b.cu_seqlens, 2 * kL);
      std::set<int64_t> want_cu{0, 2 * kL};
      for (int64_t slot = 0; slot < 2; ++slot) {
        const int64_t row = row_of("a", b.tokens.as<int32_t>() + slot * kL);
        ASSERT_GE(row, 0);
        for (int64_t i = 0; i < kL; ++i) {
          const int64_t at = row * kL + i;
          EXPECT_EQ(b.targets.as<int32_t>()[slot * kL + i], targets[size_t(at)]) << "token " << at;
          if (i == 0 || starts.count(at)) want_cu.insert(slot * kL + i);
        }
        (starts.count(row * kL + kL) ? ends_at_cuts : cuts_inside) += 1;
      }
      const auto cu = values(b.cu_seqlens);
      EXPECT_EQ(std::set<int64_t>(cu.begin(), cu.end()), want_cu);
      EXPECT_TRUE(std::adjacent_find(cu.begin(), std::find(cu.begin(), cu.end(), 2 * kL)) ==
                  std::find(cu.begin(), cu.end(), 2 * kL));
    }
  EXPECT_GT(ends_at_cuts, 0);
  EXPECT_GT(cuts_inside, 0);
}

// As many documents in a row as can be, where the fixed capacity is needed in full.
TEST_F(LoaderTest, ShortestDocumentsFit) {
  write_shard(folder_ / "short.h5", info_of(30000), Documents(100, {1}));
  Loader loader(config({{folder_ / "short.h5", 1, 100}}), 4 * kL, 4 * kL);
  MicroBatchBuffer buffer = loader.make_buffer();
  loader.load(0, 0, buffer.batch());
  check_cu_seqlens({}, buffer.batch().cu_seqlens, 4 * kL);
  EXPECT_EQ(values(buffer.batch().cu_seqlens)[1], 2);
}

TEST_F(LoaderTest, EmptyRowsArePadding) {
  Loader loader(config({source("a")}), kL, 2 * kL, 1, 2);  // rank 1 has no row at all
  MicroBatchBuffer buffer = loader.make_buffer();
  ASSERT_EQ(loader.micro_batches(), 1);
  loader.load(0, 0, buffer.batch());
  EXPECT_EQ(buffer.batch().valid_tokens, 0);
  EXPECT_EQ(values(buffer.batch().targets), std::vector<int32_t>(2 * kL, kNoTarget));
  for (const int32_t t : values(buffer.batch().tokens)) EXPECT_EQ(t, 29999);
  check_cu_seqlens({}, buffer.batch().cu_seqlens, 2 * kL);
}

// Of the first n rows each source has its share to within one row, at any n.
TEST_F(LoaderTest, WeightsAreRespectedAtEveryMoment) {
  Loader loader(config({source("a", 3), source("b", 1)}), kL, kL);
  int64_t from_a = 0, n = 0;
  for (const auto& row : rows_of(loader, 0, 400)) {
    const bool a = row_of("a", row.data()) >= 0, b = row_of("b", row.data()) >= 0;
    EXPECT_NE(a, b);
    from_a += a;
    ++n;
    EXPECT_LE(std::abs(double(from_a) - 0.75 * double(n)), 1.0) << "row " << n;
  }
  EXPECT_EQ(n, 400);
}

// Within one row of the share after any number of rows, and the same after going back or ahead.
TEST(Mixture, KeepsTheSharesOfManySources) {
  std::vector<std::vector<double>> cases{{1},       {3, 1},    {90, 5, 5},
                                         {3, 2, 1}, {1, 1, 1}, {1e6, 1, 1}};
  for (uint64_t c = 0; c < 20; ++c) {
    cases.emplace_back();
    for (uint64_t s = 0; s < 2 + c % 7; ++s) {
      const double u = random_uniform(c, s);
      cases.back().push_back(0.01 + u * u * u);
    }
  }
  for (const std::vector<double>& weights : cases) {
    const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
    Mixture mixture(weights), other(weights);
    std::vector<int64_t> given(weights.size(), 0);
    std::vector<size_t> order;
    for (int64_t row = 0; row < 3000; ++row) {
      const Mixture::Place p = mixture.place(row);
      ASSERT_EQ(p.nth, given[p.source]++);
      order.push_back(p.source);
      for (size_t s = 0; s < weights.size(); ++s)
        ASSERT_LT(std::abs(double(given[s]) - weights[s] / sum * double(row + 1)), 1)
            << "source " << s << " of " << weights.size() << " after " << row + 1 << " rows";
    }
    EXPECT_EQ(other.given(3000), given);
    for (const int64_t row : {2999, 5, 6, 4, 1000, 0, 0})
      EXPECT_EQ(other.place(row).source, order[size_t(row)]);
  }
}

// The order must not change between versions: runs that go on would read other rows.
TEST(Mixture, IsTheseRowsForEver) {
  Mixture mixture({3, 2, 1});
  std::string order;
  for (int64_t row = 0; row < 12; ++row) order += char('a' + mixture.place(row).source);
  EXPECT_EQ(order, "abacbaabacba");
  Mixture equals({1, 1, 1});
  order.clear();
  for (int64_t row = 0; row < 7; ++row) order += char('a' + equals.place(row).source);
  EXPECT_EQ(order, "abcabca") << "the first of equals";
}

TEST_F(LoaderTest, RunningOutIsAnError) {
  const int64_t rows = full_rows("a");
  Loader loader(config({source("a", 1, 2)}), kL, kL);
  loader.check_supply(2 * rows);
  expect_contains(error_of([&] { loader.check_supply(2 * rows + 1); }),
                  {"a.h5", cat(rows, " rows"), cat(2 * rows + 1, " rows"), "3 epochs"});
  EXPECT_DOUBLE_EQ(loader.epochs(rows), 1.0);
  EXPECT_DOUBLE_EQ(loader.epochs(0), 0.0);
  MicroBatchBuffer buffer = loader.make_buffer();
  loader.load(2 * rows - 1, 0, buffer.batch());
  expect_contains(error_of([&] { loader.load(2 * rows, 0, buffer.batch()); }), {"a.h5", "2"});
}

TEST_F(LoaderTest, SizesThatDoNotFitAreErrors) {
  const DataConfig c = config({source("a")});
  expect_contains(error_of([&] { Loader(c, 2 * kL + 1, kL); }), {"batch_tokens", "33", "16"});
  expect_contains(error_of([&] { Loader(c, 2 * kL, kL + 1); }), {"micro_batch_tokens", "17", "16"});
  expect_contains(error_of([&] { Loader(c, 2 * kL, 0); }), {"micro_batch_tokens", "0"});
  expect_contains(error_of([&] { Loader(c, 0, kL); }), {"batch_tokens", "0"});
  expect_contains(error_of([&] { Loader(c, kL, kL, 2, 2); }), {"rank", "2"});
  expect_contains(error_of([&] { Loader(config({}), kL, kL); }), {"data.train"});
  DataConfig no_length = c;
  no_length.seq_len_tokens = 0;
  expect_contains(error_of([&] { Loader(no_length, kL, kL); }), {"seq_len_tokens", "0"});
  DataConfig long_rows = c;
  long_rows.seq_len_tokens = 1 << 20;
  expect_contains(error_of([&] { Loader(long_rows, 1 << 20, 1 << 20); }), {"a.h5", "tokens"});

  Loader loader(c, 2 * kL, 2 * kL);
  MicroBatchBuffer small(kL, 40), fits = loader.make_buffer();
  expect_contains(error_of([&] { loader.load(0, 0, small.batch()); }), {"16", "32"});
  expect_contains(error_of([&] { loader.load(-1, 0, fits.batch()); }), {"-1"});
  expect_contains(error_of([&] { loader.load(0, 1, fits.batch()); }), {"micro-batch 1"});
  expect_contains(error_of([&] { ValidationSet(folder_ / "a.h5", kL, kL + 1); }), {"17", "16"});
  expect_contains(error_of([&] { ValidationSet(folder_ / "a.h5", kL, 0); }), {"0", "16"});
}

TEST_F(LoaderTest, SourcesOfTwoTokenizersAreRefused) {
  ShardInfo other = info_of(30000);
  other.tokenizer = "another";
  write_shard(folder_ / "other.h5", other, documents_["a"]);
  expect_contains(error_of([&] {
                    Loader(config({source("a"), source("other")}), kL, kL);
                  }),
                  {"other.h5", "another", "test-tokenizer"});
}

TEST_F(LoaderTest, ValidationCoversEveryByteOnce) {
  for (const std::string name : {"a", "b"})
    for (const int64_t micro_rows : {1, 3, 1000}) {
      SCOPED_TRACE(cat(name, " ", micro_rows));
      const ValidationSet set(folder_ / (name + ".h5"), kL, micro_rows * kL);
      const std::vector<int32_t>& want = stream_[name];
      ASSERT_NE(int64_t(want.size()) % kL, 0) << "the last row should be short in this test";
      const ShardInfo& info = *set.shard_info();
      std::vector<int32_t> tokens;
      std::map<int32_t, int64_t> targets, text;
      int64_t valid = 0, bytes = 0;
      MicroBatchBuffer buffer = set.make_buffer();
      for (int64_t m = 0; m < set.micro_batches(); ++m) {
        set.load(m, buffer.batch());
        check_cu_seqlens({}, buffer.batch().cu_seqlens, micro_rows * kL);
        valid += buffer.batch().valid_tokens;
        const auto t = values(buffer.batch().tokens), y = values(buffer.batch().targets);
        for (size_t i = 0; i < t.size(); ++i) {
          if (y[i] == kNoTarget) continue;
          tokens.push_back(t[i]);
          bytes += info.token_bytes[size_t(y[i])];
          ++targets[y[i]];
        }
      }
      for (const int32_t t : want) ++text[t];
      EXPECT_EQ(tokens, want);
      EXPECT_EQ(targets, text) << "every token and every end is a target as often as it occurs";
      EXPECT_EQ(valid, int64_t(want.size()));
      EXPECT_EQ(bytes, set.text_bytes());
    }
}

TEST_F(LoaderTest, EmptyValidationSetIsAnError) {
  write_shard(folder_ / "none.h5", info_of(30000), {});
  expect_contains(error_of([&] { ValidationSet(folder_ / "none.h5", kL, kL); }),
                  {"none.h5", "no tokens"});
}

}  // namespace
}  // namespace sluice
