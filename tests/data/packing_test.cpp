// tests/data/packing_test.cpp -- best-fit packing: by hand, against its rules, and as batches.
#include "data/loader/packing.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "data/loader/loader.h"
#include "model/layers/layer.h"
#include "tests/data/shard_files.h"

namespace sluice {
namespace {

using namespace test;

std::vector<int64_t> offsets_of(const std::vector<int64_t>& lengths, int64_t from = 0) {
  std::vector<int64_t> at{from};
  for (const int64_t n : lengths) at.push_back(at.back() + n);
  return at;
}

// The lengths of the pieces of each row.
std::vector<std::vector<int64_t>> lengths_in(const std::vector<PackedRow>& rows) {
  std::vector<std::vector<int64_t>> out;
  for (const PackedRow& row : rows) {
    out.emplace_back();
    for (const Piece& p : row) out.back().push_back(p.end - p.begin);
  }
  return out;
}

using Rows2 = std::vector<std::vector<int64_t>>;

TEST(Packing, ByHand) {
  // 7, 6, 5 open rows with 3, 4 and 5 left; 4 fits the second exactly, 3 the first, 2 and 2 the
  // third.
  EXPECT_EQ(lengths_in(pack_best_fit(offsets_of({2, 3, 7, 2, 5, 4, 6}), 10)),
            (Rows2{{7, 3}, {6, 4}, {5, 2, 2}}));
  // The fullest row that has room, not the first: 3 goes beside 7, not beside 6.
  EXPECT_EQ(lengths_in(pack_best_fit(offsets_of({6, 7, 3}), 10)), (Rows2{{7, 3}, {6}}));
  // Only what is longer than a row is cut.
  EXPECT_EQ(lengths_in(pack_best_fit(offsets_of({25, 10, 5}), 10)),
            (Rows2{{10}, {10}, {10}, {5, 5}}));
  EXPECT_EQ(lengths_in(pack_best_fit(offsets_of({0, 4, 0}), 10)), (Rows2{{4}}));
  EXPECT_TRUE(pack_best_fit(offsets_of({}), 10).empty());
}

// No row is too full, every token is in one, documents that fit are whole, and no two rows could be
// one: of two that are at most half full, what opened the later one would have fitted the other.
TEST(Packing, Rules) {
  for (uint64_t seed = 0; seed < 40; ++seed) {
    const int64_t L = 8 + int64_t(seed);
    std::vector<int64_t> lengths;
    for (uint64_t d = 0; d < 60; ++d) {
      const double u = random_uniform(seed, d);
      lengths.push_back(int64_t(u * u * u * 3 * double(L)));
    }
    const auto at = offsets_of(lengths, 1000);
    const std::vector<PackedRow> rows = pack_best_fit(at, L);
    std::vector<Piece> all;
    int64_t half_empty = 0;
    for (const PackedRow& row : rows) {
      int64_t tokens = 0;
      for (const Piece& p : row) {
        tokens += p.end - p.begin;
        EXPECT_LT(p.begin, p.end);
        all.push_back(p);
      }
      EXPECT_LE(tokens, L);
      half_empty += 2 * tokens <= L;
    }
    EXPECT_LE(half_empty, 1);
    std::sort(all.begin(), all.end(), [](auto& a, auto& b) { return a.begin < b.begin; });
    int64_t next = 1000;
    size_t pieces = 0;
    for (const Piece& p : all) {
      EXPECT_EQ(p.begin, next);
      next = p.end;
      const auto document = std::upper_bound(at.begin(), at.end(), p.begin) - 1;
      EXPECT_LE(p.end, document[1]);
    }
    EXPECT_EQ(next, at.back());
    for (const int64_t n : lengths) pieces += size_t((n + L - 1) / L);
    EXPECT_EQ(all.size(), pieces) << "as few as can be";
  }
}

constexpr int64_t kL = 16;

class PackedLoader : public ::testing::Test {
 protected:
  void SetUp() override {
    documents_ = make_documents(3000, 40, 30000);  // about 60000 tokens: 15 windows
    write_shard(folder_ / "a.h5", info_of(30000), documents_);
    stream_ = stream_of(documents_, 29999);
  }
  DataConfig config(int64_t seed = 1, int64_t max_epochs = 2) const {
    DataConfig c;
    c.seed = seed;
    c.train = {{folder_ / "a.h5", 1, max_epochs}};
    c.seq_len_tokens = kL;
    c.packing = "best_fit";
    return c;
  }
  const Folder folder_;
  Documents documents_;
  std::vector<int32_t> stream_;
};

std::vector<int32_t> values(const Tensor& t) {
  return {t.as<int32_t>(), t.as<int32_t>() + t.numel()};
}

// An epoch has every token once, with the target that the definition gives it; cu_seqlens begins
// anew at each document, and the documents that fit are whole.
TEST_F(PackedLoader, AnEpochIsEveryTokenOnce) {
  std::vector<std::pair<int32_t, int32_t>> want, got;  // token, target
  for (const auto& d : documents_)
    for (size_t i = 0; i <= d.size(); ++i)
      want.emplace_back(i == 0 ? 29999 : d[i - 1], i == d.size() ? 29999 : d[i]);
  Loader loader(config(), kL, kL);
  MicroBatchBuffer buffer = loader.make_buffer();
  const MicroBatch& b = buffer.batch();
  int64_t padding = 0, rows = 0, begun = 0, whole = 0;
  for (; loader.epochs(rows) < 1; ++rows) {
    loader.load(rows, 0, buffer.batch());
    check_cu_seqlens({}, b.cu_seqlens, kL);
    EXPECT_EQ(b.valid_tokens, loader.valid_tokens(rows));
    const auto t = values(b.tokens), y = values(b.targets), cu = values(b.cu_seqlens);
    int64_t valid = 0;
    for (size_t i = 0; i < size_t(kL); ++i) {
      const bool starts = std::find(cu.begin(), cu.end(), int32_t(i)) != cu.end();
      if (y[i] == kNoTarget) {
        ++padding;
        EXPECT_EQ(t[i], 29999);
        continue;
      }
      got.emplace_back(t[i], y[i]);
      ++valid;
      EXPECT_TRUE(starts || t[i] != 29999);
      EXPECT_TRUE(y[i] != 29999 || std::find(cu.begin(), cu.end(), int32_t(i) + 1) != cu.end());
      begun += t[i] == 29999;
    }
    EXPECT_EQ(valid, b.valid_tokens);
    for (size_t d = 0; d + 1 < cu.size(); ++d)
      whole += cu[d] < cu[d + 1] && t[size_t(cu[d])] == 29999 && y[size_t(cu[d + 1]) - 1] == 29999;
  }
  std::sort(want.begin(), want.end());
  std::sort(got.begin(), got.end());
  EXPECT_EQ(got, want);
  EXPECT_EQ(begun, int64_t(documents_.size()));
  EXPECT_EQ(whole, std::count_if(documents_.begin(), documents_.end(),
                                 [](const auto& d) { return int64_t(d.size()) < kL; }));
  EXPECT_GT(padding, 0);
  EXPECT_LT(double(padding), 0.05 * double(rows * kL));
}

TEST_F(PackedLoader, OrderIsAFunctionOfSeedAndStepWhateverTheRanks) {
  const auto rows_of = [](Loader& loader, int64_t from, int64_t steps) {
    std::vector<std::vector<int32_t>> out;
    MicroBatchBuffer buffer = loader.make_buffer();
    for (int64_t s = from; s < from + steps; ++s)
      for (int64_t m = 0; m < loader.micro_batches(); ++m) {
        loader.load(s, m, buffer.batch());
        const auto t = values(buffer.batch().tokens), y = values(buffer.batch().targets);
        for (int64_t at = 0; at < int64_t(t.size()); at += kL)
          if (y[size_t(at)] != kNoTarget) {
            out.emplace_back(t.begin() + at, t.begin() + at + kL);
            out.back().insert(out.back().end(), y.begin() + at, y.begin() + at + kL);
          }
      }
    return out;
  };
  Loader alone(config(), 7 * kL, 2 * kL), resumed(config(), 7 * kL, 2 * kL);
  const auto all = rows_of(alone, 0, 12);
  ASSERT_EQ(all.size(), 84u);
  const auto tail = rows_of(resumed, 9, 3);
  EXPECT_TRUE(std::equal(tail.begin(), tail.end(), all.begin() + 63, all.end()));
  for (const int ranks : {2, 3}) {
    std::vector<Loader> parts;
    for (int r = 0; r < ranks; ++r) parts.emplace_back(config(), 7 * kL, 2 * kL, r, ranks);
    std::vector<std::vector<int32_t>> together;
    for (int64_t s = 0; s < 12; ++s)
      for (Loader& part : parts) {
        EXPECT_EQ(part.valid_tokens(s), alone.valid_tokens(s));
        for (auto& row : rows_of(part, s, 1)) together.push_back(row);
      }
    EXPECT_EQ(together, all);
  }
  Loader reseeded(config(2), 7 * kL, 2 * kL);
  EXPECT_NE(rows_of(reseeded, 0, 12), all);
}

TEST_F(PackedLoader, RunningOutIsAnError) {
  Loader loader(config(), kL, kL);
  int64_t rows = 0;
  while (loader.epochs(rows) < 1) ++rows;
  loader.check_supply(2 * rows);
  expect_contains(error_of([&] { loader.check_supply(2 * rows + 1); }),
                  {"a.h5", cat(rows, " rows"), "3 epochs"});
}

}  // namespace
}  // namespace sluice
