// tests/model/param_store_test.cpp -- names, who may touch what and when, and initial values.
#include <cmath>

#include "kernels/tensor/rng.h"
#include "model/autograd/plain_store.h"
#include "tests/support/gradcheck.h"
#include "tests/support/message.h"

namespace sluice::test {
namespace {

class PlainStoreTest : public ::testing::Test {
 protected:
  PlainStoreTest() : store_(DType::f64) {
    for (const char* group : {"layers.0", "head"}) store_.add_group(group);
    up_ = store_.add({.name = "layers.0.up_proj", .shape = {3, 2}, .group = 0});
    norm_ = store_.add({.name = "head.norm", .shape = {5}, .group = 1});
  }
  PlainStore store_;
  ParamId up_, norm_;
};

TEST_F(PlainStoreTest, NamesAreFoundOrTheNearestIsNamed) {
  EXPECT_EQ(store_.find("head.norm").index, norm_.index);
  EXPECT_EQ(store_.numel(), 11);
  expect_contains(error_of([&] { store_.find("layers.0.up_prj"); }),
                  {"no parameter \"layers.0.up_prj\"", "nearest is \"layers.0.up_proj\""});
  const std::string far = error_of([&] { store_.find("embedding"); });
  expect_contains(far, {"no parameter \"embedding\""});
  EXPECT_EQ(far.find("nearest"), std::string::npos);
}

TEST_F(PlainStoreTest, RefusesSpecsThatCannotBe) {
  expect_contains(error_of([&] { store_.add({.name = "head.norm", .shape = {1}, .group = 0}); }),
                  {"head.norm", "twice"});
  expect_contains(error_of([&] { store_.add({.name = "x", .shape = {1}, .group = 2}); }),
                  {"x is in group 2 of 2"});
  expect_contains(
      error_of([&] {
        store_.add(
            {.name = "qkv", .shape = {6, 2}, .group = 0, .row_blocks = {{"q", 2}, {"k", 3}}});
      }),
      {"qkv has 6 rows", "row blocks 5"});
  store_.allocate();
  expect_contains(error_of([&] { store_.allocate(); }), {"once"});
}

TEST_F(PlainStoreTest, ValuesAndGradientsBelongToTheirBlock) {
  store_.allocate();
  const auto value = [&] { return error_of([&] { store_.value(up_); }); };
  const auto grad = [&] { return error_of([&] { store_.grad(up_); }); };
  expect_contains(value(), {"layers.0.up_proj", "outside its block layers.0"});
  store_.acquire(1, Pass::backward);
  expect_contains(value(), {"outside"});  // another block's turn
  store_.acquire(0, Pass::forward);
  EXPECT_EQ(to_string(store_.value(up_)), "f64 [3, 2] on cpu");
  expect_contains(grad(), {"layers.0.up_proj", "outside its block's backward"});
  store_.acquire(0, Pass::backward);  // nested: forward of a recomputed block
  EXPECT_EQ(to_string(store_.grad(up_).t), "f64 [3, 2] on cpu");
  store_.release(0, Pass::backward);
  expect_contains(grad(), {"outside"});
  EXPECT_EQ(value(), "no error");
  store_.release(0, Pass::forward);
  expect_contains(value(), {"outside"});
  expect_contains(error_of([&] { store_.release(0, Pass::forward); }), {"layers.0", "acquired"});
}

TEST_F(PlainStoreTest, TheFirstGradientOfAStepIsWrittenAndTheUnwrittenAreZero) {
  store_.allocate();
  for (int g : {0, 1}) store_.acquire(g, Pass::backward);
  for (int step = 0; step < 2; ++step) {
    store_.start_step();
    for (const Shard& s : store_.shards()) fill(s.grad, 7);  // of the step before
    EXPECT_FALSE(store_.grad(up_).add);
    EXPECT_TRUE(store_.grad(up_).add);
    store_.finish_gradients();
    for (int64_t i = 0; i < 6; ++i) EXPECT_EQ(element(store_.shards()[0].grad, i), 7);
    for (int64_t i = 0; i < 5; ++i) EXPECT_EQ(element(store_.shards()[1].grad, i), 0);
  }
}

// --- initialize -------------------------------------------------------------------------------

// Owns elements begin .. of each parameter, as one of several ranks would.
class PartStore : public PlainStore {
 public:
  PartStore(double from, double to) : PlainStore(DType::f64), from_(from), to_(to) {}
  void allocate() override {
    PlainStore::allocate();
    for (const Shard& s : PlainStore::shards()) {
      const auto n = double(s.master.numel());
      const auto begin = int64_t(from_ * n), end = int64_t(to_ * n);
      parts_.push_back({s.id, begin, s.master.rows(begin, end - begin), {}});
    }
  }
  const std::vector<Shard>& shards() const override { return parts_; }

 private:
  double from_, to_;
  std::vector<Shard> parts_;
};

const Init kInits[] = {{Init::Kind::constant, 0.5, 0},
                       {Init::Kind::normal, 0.02, 0},
                       {Init::Kind::uniform, -0.5, 1.5},
                       {Init::Kind::log_uniform_log, 1, 16},
                       {Init::Kind::inverse_softplus_log_uniform, 1e-3, 0.1}};

template <class Store>
Store& filled(Store& store, uint64_t seed, bool reversed = false) {
  store.add_group("g");
  for (size_t i = 0; i < std::size(kInits); ++i) {
    const size_t k = reversed ? std::size(kInits) - 1 - i : i;
    store.add({.name = cat("p", k), .shape = {5000}, .init = kInits[k], .group = 0});
  }
  store.allocate();
  initialize(store, seed);
  return store;
}
double initial(const ParamStore& store, const std::string& name, int64_t i) {
  const Shard& s = store.shards()[size_t(store.find(name).index)];
  return element(s.master, i - s.begin);
}

TEST(Initialize, IsAFunctionOfSeedNameAndElement) {
  PlainStore whole(DType::f64), other_order(DType::f64), other_seed(DType::f64);
  PartStore low(0, 0.3), high(0.3, 1);
  filled(whole, 1), filled(other_order, 1, true), filled(other_seed, 2);
  filled(low, 1), filled(high, 1);
  for (size_t k = 0; k < std::size(kInits); ++k) {
    const std::string p = cat("p", k);
    int equal = 0;
    for (int64_t i = 0; i < 5000; ++i) {
      const double x = initial(whole, p, i);
      ASSERT_EQ(initial(other_order, p, i), x) << p << " " << i;
      ASSERT_EQ(initial(i < 1500 ? low : high, p, i), x) << p << " " << i;
      equal += initial(other_seed, p, i) == x;
    }
    EXPECT_EQ(equal, k == 0 ? 5000 : 0) << p;
  }
}

// Means of the drawn quantity; the deviation of a mean of 5000 is 1 / sqrt(5000) of one draw's, and
// the bounds are five of those.
TEST(Initialize, DrawsWhatTheSpecSays) {
  PlainStore store(DType::f64);
  filled(store, 3);
  const auto moments = [&](const char* p, const std::function<double(double)>& undo, double lo,
                           double hi) {
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < 5000; ++i) {
      const double x = undo(initial(store, p, i));
      EXPECT_TRUE(x >= lo && x <= hi) << p << " " << i << ": " << x;
      sum += x, squares += x * x;
    }
    return std::pair(sum / 5000, squares / 5000);
  };
  const auto same = [](double x) { return x; };
  EXPECT_EQ(moments("p0", same, 0.5, 0.5).first, 0.5);
  const auto [mean, square] = moments("p1", same, -0.2, 0.2);
  EXPECT_NEAR(mean, 0, 5 * 0.02 / std::sqrt(5000.0));
  EXPECT_NEAR(square, 0.02 * 0.02, 5 * std::sqrt(2.0) * 0.02 * 0.02 / std::sqrt(5000.0));
  const double uniform = std::sqrt(1.0 / 12 / 5000);  // deviation of the mean of uniform [0, 1)
  EXPECT_NEAR(moments("p2", same, -0.5, 1.5).first, 0.5, 5 * 2 * uniform);
  const double slack = 1e-12;  // log and exp, there and back
  const auto exp = [](double x) { return std::exp(x); };
  EXPECT_NEAR(moments("p3", exp, 1 - slack, 16 + slack).first, 8.5, 5 * 15 * uniform);
  const auto log_softplus = [](double x) { return std::log(std::log1p(std::exp(x))); };
  const double la = std::log(1e-3), lb = std::log(0.1);
  EXPECT_NEAR(moments("p4", log_softplus, la - slack, lb + slack).first, (la + lb) / 2,
              5 * (lb - la) * uniform);
}

}  // namespace
}  // namespace sluice::test
