// tests/model/generate_test.cpp -- chunk == recurrent: prefill at once, in pieces and token by
// token.
#include <gtest/gtest.h>

#include <iostream>

#include "model/generate/generator.h"
#include "model/generate/sample.h"
#include "tests/support/cpu_context.h"
#include "tests/support/tiny_model.h"

namespace sluice {
namespace {

class Pieces : public ::testing::Test {
 protected:
  Pieces() : params_(DType::f32), lm_(config(), params_) {
    params_.allocate();
    initialize(params_, 11);
    for (int64_t n = 0; n < 200; ++n) prompt_.push_back(int32_t(random_u64(4, uint64_t(n)) % 29));
  }
  static LmConfig config() {
    LmConfig c = test::tiny_config();
    c.mla.use_nope = false;  // positions must go on across pieces
    return c;
  }
  // Logits after the prompt, fed in pieces of these sizes, again and again.
  std::vector<double> logits(const std::vector<size_t>& sizes, int64_t chunk = 200) {
    const Context ctx{.threads = &pool_};
    Generator g(ctx, params_, lm_, DType::f32, {.max_tokens = 300, .prefill_chunk_tokens = chunk});
    const int64_t slot = g.join().value();
    Tensor out;
    std::span<const int32_t> rest = prompt_;
    for (size_t i = 0; !rest.empty(); ++i) {
      const size_t n = std::min(rest.size(), sizes[i % sizes.size()]);
      const Generator::Piece piece{slot, rest.first(n)};
      out = g.feed(n == 1 ? CacheStep::decode : CacheStep::prefill, {&piece, 1});
      rest = rest.subspan(n);
    }
    std::vector<double> v;
    for (int64_t i = 0; i < out.numel(); ++i) v.push_back(test::element(out, i));
    return v;
  }

  ThreadPool pool_{2};
  PlainStore params_;
  Lm lm_;
  std::vector<int32_t> prompt_;
};

TEST_F(Pieces, PrefillEqualsSteps) {
  const std::vector<double> whole = logits({200});
  double scale = 0;
  for (const double x : whole) scale = std::max(scale, std::abs(x));
  for (const std::vector<size_t>& sizes :
       {std::vector<size_t>{1}, {64}, {7, 1, 33}, {100}, {199, 1}}) {
    const std::vector<double> pieces = logits(sizes);
    double worst = 0;
    for (size_t i = 0; i < whole.size(); ++i)
      worst = std::max(worst, std::abs(pieces[i] - whole[i]));
    std::cout << "pieces of " << sizes[0] << ", ...: max difference " << worst << " of " << scale
              << "\n";
    EXPECT_LT(worst / scale, 2e-5);  // f32 sums in another order, through four layers
  }
}

TEST_F(Pieces, GreedyTextIsTheSame) {
  const Context ctx{.threads = &pool_};
  std::vector<std::vector<int32_t>> texts;
  for (const int64_t piece : {1, 16, 200}) {
    Generator g(ctx, params_, lm_, DType::f32, {.max_tokens = 300, .prefill_chunk_tokens = piece});
    texts.push_back(generate(g, prompt_, {.max_new_tokens = 60}));
  }
  EXPECT_EQ(texts[0].size(), 60u);
  EXPECT_EQ(texts[0], texts[1]);
  EXPECT_EQ(texts[0], texts[2]);
}

TEST_F(Pieces, MoreThanRoomIsRefused) {
  const Context ctx{.threads = &pool_};
  Generator g(ctx, params_, lm_, DType::f32, {.max_tokens = 100, .prefill_chunk_tokens = 200});
  const Generator::Piece piece{g.join().value(), prompt_};
  EXPECT_THROW(g.feed(CacheStep::prefill, {&piece, 1}), Error);
}

TEST(Sample, FollowsTheSoftmaxAndItsSeed) {
  Buffer logits(DType::f32, {3});
  logits.view().as<float>()[1] = 1;
  logits.view().as<float>()[2] = -20;  // never, in so few draws
  int64_t ones = 0;
  for (int64_t i = 0; i < 4000; ++i) {
    const int32_t t = sample(logits.view(), 1.0, 9, i);
    EXPECT_EQ(t, sample(logits.view(), 1.0, 9, i));
    EXPECT_NE(t, 2);
    ones += t == 1;
  }
  // sigmoid(1) = 0.731; the standard deviation of the share is 0.007: five of them.
  EXPECT_NEAR(double(ones) / 4000, 0.731, 0.035);
}

}  // namespace
}  // namespace sluice
