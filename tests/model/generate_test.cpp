// tests/model/generate_test.cpp -- chunk == recurrent: prefill at once, in pieces and token by
// token; batched == one by one, to the bit; slots, their memory and what they must not remember.
#include <gtest/gtest.h>

#include <cmath>
#include <iostream>
#include <limits>

#include "model/generate/scheduler.h"
#include "tests/support/cpu_context.h"
#include "tests/support/tiny_model.h"

namespace sluice {
namespace {

class Pieces : public ::testing::TestWithParam<test::Variant> {
 protected:
  Pieces() : params_(DType::f32), lm_(config(), params_) {
    params_.allocate();
    initialize(params_, 11);
    test::set_unequal_loads(params_);
    for (int64_t n = 0; n < 200; ++n) prompt_.push_back(int32_t(random_u64(4, uint64_t(n)) % 29));
  }
  static LmConfig config() {
    LmConfig c = GetParam().config;
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

INSTANTIATE_TEST_SUITE_P(Ffns, Pieces,
                         ::testing::Values(test::Variant{"dense", test::tiny_config()},
                                           test::Variant{"moe", test::tiny_moe_config()},
                                           test::Variant{"gdn", test::tiny_config("gdn")},
                                           test::Variant{"mamba2", test::tiny_config("mamba2")}),
                         [](const auto& p) { return p.param.name; });

TEST_P(Pieces, PrefillEqualsSteps) {
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

TEST_P(Pieces, GreedyTextIsTheSame) {
  const Context ctx{.threads = &pool_};
  std::vector<std::vector<int32_t>> texts;
  for (const int64_t piece : {1, 16, 200}) {
    Generator g(ctx, params_, lm_, DType::f32, {.max_tokens = 300, .prefill_chunk_tokens = piece});
    texts.push_back(complete(g, {{.prompt = prompt_, .max_new_tokens = 60}}).front().tokens);
  }
  EXPECT_EQ(texts[0].size(), 60u);
  EXPECT_EQ(texts[0], texts[1]);
  EXPECT_EQ(texts[0], texts[2]);
}

TEST_P(Pieces, MoreThanRoomIsRefused) {
  const Context ctx{.threads = &pool_};
  Generator g(ctx, params_, lm_, DType::f32, {.max_tokens = 100, .prefill_chunk_tokens = 200});
  const Generator::Piece piece{g.join().value(), prompt_};
  EXPECT_THROW(g.feed(CacheStep::prefill, {&piece, 1}), Error);
}

// Slots of a model with KDA and MLA, NoPE or rotary, with experts, or with GDN or Mamba2, whose
// state decays slowly: what leaked from elsewhere would stay. Wide enough for a BLAS to round
// differently by batch.
enum class Kind : uint8_t { nope, rope, moe, gdn, mamba2 };
class Slots : public testing::TestWithParam<Kind> {
 protected:
  Slots() : params_(DType::f32), lm_(config(), params_) {
    params_.allocate();
    initialize(params_, 11);
    test::set_slow_decay(params_);
  }
  static LmConfig config() {
    LmConfig c = test::tiny_config();
    c.hidden_size = 160;
    c.intermediate_size = 240;
    c.initializer_range = 0.08;
    c.mla.use_nope = GetParam() != Kind::rope;
    if (GetParam() == Kind::gdn) c.linear = "gdn";
    if (GetParam() == Kind::mamba2) c.linear = "mamba2";
    if (GetParam() == Kind::moe) {
      c.ffn = "moe";
      c.moe = {.num_experts = 8, .num_experts_per_token = 2, .moe_intermediate_size = 80};
    }
    return c;
  }
  Generator generator(int64_t slots, int64_t max_tokens = 300, int64_t chunk = 32) {
    return Generator({.threads = &pool_}, params_, lm_, DType::f32,
                     {.slots = slots, .max_tokens = max_tokens, .prefill_chunk_tokens = chunk});
  }
  static std::vector<int32_t> prompt(uint64_t seed, int64_t length) {
    std::vector<int32_t> p;
    for (int64_t n = 0; n < length; ++n) p.push_back(int32_t(random_u64(seed, uint64_t(n)) % 29));
    return p;
  }
  // Unequal prompts and texts: slots are left and joined while others decode.
  static std::vector<Request> requests(double temperature) {
    std::vector<Request> list;
    const int64_t lengths[] = {1, 31, 32, 33, 64, 5, 130, 2, 17, 96, 15, 16};
    for (size_t i = 0; i < std::size(lengths); ++i)
      list.push_back({.prompt = prompt(i, lengths[i]),
                      .max_new_tokens = 3 + int64_t(i * 13 % 40),
                      .stop_tokens = {7},
                      .temperature = temperature,
                      .top_k = int64_t(i % 3 * 4),
                      .top_p = i % 2 == 0 ? 1 : 0.9,
                      .key = sampling_key(5, int64_t(i))});
    return list;
  }
  static void fill_cache(const Generator& g, double value) {
    for (const MixerCache& layer : g.cache())
      for (const std::vector<Buffer>* part : {&layer.state, &layer.rows})
        for (const Buffer& b : *part) test::fill(b.view(), value);
  }

  ThreadPool pool_{2};
  PlainStore params_;
  Lm lm_;
};
std::string name_of(const testing::TestParamInfo<Kind>& p) {
  const char* names[] = {"nope", "rope", "moe", "gdn", "mamba2"};
  return names[size_t(p.param)];
}
INSTANTIATE_TEST_SUITE_P(Models, Slots,
                         testing::Values(Kind::nope, Kind::rope, Kind::moe, Kind::gdn,
                                         Kind::mamba2),
                         name_of);

void expect_equal(const Completion& a, const Completion& b, const std::string& what) {
  EXPECT_EQ(a.tokens, b.tokens) << what;
  EXPECT_EQ(a.logprobs, b.logprobs) << what;  // every bit of them
  EXPECT_EQ(a.finish, b.finish) << what;
}

TEST_P(Slots, BatchedEqualsOneByOneToTheBit) {
  for (const double temperature : {0.0, 1.0}) {
    std::vector<Completion> alone;
    for (Request& r : requests(temperature)) {
      Generator g = generator(1);
      alone.push_back(complete(g, {r}).front());
    }
    size_t stopped = 0;
    for (const Completion& c : alone) stopped += c.finish == Finish::stop_token;
    if (temperature > 0) {
      EXPECT_GT(stopped, 0u);  // both ends of a text are met
      EXPECT_LT(stopped, alone.size());
    }
    for (const int64_t slots : {1, 2, 5, 12}) {
      Generator g = generator(slots);
      const std::vector<Completion> together = complete(g, requests(temperature));
      for (size_t i = 0; i < alone.size(); ++i)
        expect_equal(together[i], alone[i], cat(slots, " slots, request ", i));
    }
  }
}

TEST_P(Slots, ThreadsChangeNoBit) {
  Generator two = generator(5);
  const std::vector<Completion> want = complete(two, requests(1));
  Generator one(Context{}, params_, lm_, DType::f32,
                {.slots = 5, .max_tokens = 300, .prefill_chunk_tokens = 32});
  const std::vector<Completion> got = complete(one, requests(1));
  for (size_t i = 0; i < want.size(); ++i) expect_equal(got[i], want[i], cat("request ", i));
}

TEST_P(Slots, AJoinedSlotRemembersNothing) {
  Generator fresh = generator(1), used = generator(1);
  const Request r{.prompt = prompt(3, 70), .max_new_tokens = 20};
  const Completion want = complete(fresh, {r}).front();
  complete(used, {{.prompt = prompt(4, 200), .max_new_tokens = 50}});
  expect_equal(complete(used, {r}).front(), want, "after another sequence");
  fill_cache(used, std::numeric_limits<double>::quiet_NaN());
  expect_equal(complete(used, {r}).front(), want, "after NaN");
}

TEST_P(Slots, NanInOneSlotStaysThere) {
  Generator g = generator(3), clean = generator(3);
  std::vector<Tensor> logits;
  std::vector<float> want;
  const std::vector<int32_t> p = prompt(3, 30);
  for (Generator* x : {&clean, &g}) {
    const int64_t a = x->join().value(), b = x->join().value();
    const Generator::Piece first[] = {{a, p}};
    x->feed(CacheStep::prefill, first);
    if (x == &g)
      for (const MixerCache& layer : g.cache())
        for (const std::vector<Buffer>* part : {&layer.state, &layer.rows})
          for (const Buffer& buffer : *part)
            for (const int64_t slot : {b, b + 1})
              test::fill(buffer.view().rows(slot, 1), std::numeric_limits<double>::quiet_NaN());
    const Generator::Piece next[] = {{a, std::span(p).first(1)}, {b, std::span(p).first(1)}};
    const Tensor out = x->feed(CacheStep::decode, next);
    const std::vector<float> row(out.row<float>(0), out.row<float>(0) + 29);
    if (x == &clean) want = row;
    EXPECT_EQ(row, want);
    EXPECT_EQ(std::isnan(out.row<float>(1)[0]), x == &g);
  }
}

// A sequence whose logits are NaN must not become token 0 forever.
TEST_P(Slots, NanLogitsThrow) {
  Generator g = generator(1);
  for (const Shard& s : params_.shards())
    if (params_.spec(s.id).name == "head.norm")
      test::fill(s.master, std::numeric_limits<double>::quiet_NaN());
  EXPECT_THROW(complete(g, {{.prompt = {1, 2}}}), Error);
}

// A text goes on where it stopped: prefill of prompt and text, then the rest, equals decoding it
// all, up to the rounding of chunks against steps.
TEST_P(Slots, ATurnMayFollow) {
  Generator g = generator(1);
  const std::vector<int32_t> p = prompt(3, 70), more = prompt(4, 40);
  const int64_t slot = g.join().value();
  const auto feed = [&](CacheStep step, std::span<const int32_t> tokens) {
    const Generator::Piece piece{slot, tokens};
    return g.feed(step, {&piece, 1});
  };
  for (size_t i = 0; i < p.size(); ++i) feed(CacheStep::decode, std::span(p).subspan(i, 1));
  Tensor out = feed(CacheStep::prefill, std::span(more).first(20));
  out = feed(CacheStep::prefill, std::span(more).subspan(20));
  const std::vector<float> turns(out.row<float>(0), out.row<float>(0) + 29);
  g.leave(slot);
  ASSERT_EQ(g.join(), slot);
  std::vector<int32_t> all = p;
  all.insert(all.end(), more.begin(), more.end());
  for (size_t at = 0; at < all.size(); at += 32)
    out =
        feed(CacheStep::prefill, std::span(all).subspan(at, std::min<size_t>(32, all.size() - at)));
  for (size_t i = 0; i < turns.size(); ++i)
    EXPECT_NEAR(turns[i], out.row<float>(0)[i], 1e-4);  // of logits near 3, slow decay
}

TEST_P(Slots, MemoryIsPlannedAndKnown) {
  Generator g = generator(4, 300, 32);
  // Three KDA layers: [4, 8, 8] and 64 channels of 3 inputs; one MLA layer: 12 + 4 numbers a token.
  EXPECT_EQ(g.bytes().state_per_slot, 3 * (4 * 8 * 8 + 64 * 3) * 4);
  EXPECT_EQ(g.bytes().cache_per_token, 16 * 4);
  EXPECT_EQ(g.bytes().cache_total, 4 * (g.bytes().state_per_slot + 300 * 64));
  EXPECT_EQ(g.arena().capacity(), g.bytes().arena);
  std::vector<Generator::Piece> pieces;
  const std::vector<int32_t> tokens = prompt(1, 32);
  for (int64_t s = 0; s < 4; ++s)
    pieces.push_back({g.join().value(), std::span(tokens).subspan(size_t(8 * s), 8)});
  EXPECT_EQ(g.join(), std::nullopt);
  g.feed(CacheStep::prefill, pieces);
  EXPECT_EQ(g.arena().peak(), g.bytes().arena);
  // Any smaller call fits too.
  for (uint64_t i = 0; i < 200; ++i) {
    const int64_t slot = int64_t(random_u64(1, i) % 4);
    const size_t n = 1 + random_u64(2, i) % 32;
    if (g.length(slot) + int64_t(n) > 300) continue;
    const Generator::Piece piece{slot, std::span(tokens).first(n)};
    g.feed(n == 1 ? CacheStep::decode : CacheStep::prefill, {&piece, 1});
  }
  EXPECT_EQ(g.arena().peak(), g.bytes().arena);
}

TEST_P(Slots, MisuseIsRefused) {
  Generator g = generator(2, 40, 32);
  const int64_t a = g.join().value(), b = g.join().value();
  const std::vector<int32_t> p = prompt(1, 33);
  const std::span<const int32_t> one = std::span(p).first(1), two = std::span(p).first(2);
  const auto feed = [&](CacheStep step, std::vector<Generator::Piece> pieces) {
    g.feed(step, pieces);
  };
  EXPECT_THROW(feed(CacheStep::prefill, {}), Error);
  EXPECT_THROW(feed(CacheStep::prefill, {{a, p}}), Error);             // more than a chunk
  EXPECT_THROW(feed(CacheStep::decode, {{a, two}}), Error);            // two tokens in a step
  EXPECT_THROW(feed(CacheStep::decode, {{b, one}, {a, one}}), Error);  // order
  EXPECT_THROW(feed(CacheStep::decode, {{a, one}, {a, one}}), Error);  // twice
  EXPECT_THROW(feed(CacheStep::decode, {{a, one.first(0)}}), Error);   // nothing
  EXPECT_THROW(feed(CacheStep::decode, {{2, one}}), Error);            // no such slot
  g.leave(b);
  EXPECT_THROW(feed(CacheStep::decode, {{b, one}}), Error);
  EXPECT_THROW(g.leave(b), Error);
  Scheduler s(g);
  EXPECT_THROW(s.add({.prompt = p, .max_new_tokens = 8}), Error);  // 41 tokens
  EXPECT_THROW(s.add({.prompt = {}}), Error);
  EXPECT_THROW(s.take(0), Error);
}

TEST_P(Slots, CallbackEndsAText) {
  Generator g = generator(2);
  std::vector<int32_t> seen;
  Scheduler s(g);
  const int64_t id =
      s.add({.prompt = prompt(1, 40), .max_new_tokens = 50, .on_token = [&](int32_t token) {
               seen.push_back(token);
               return seen.size() < 5;
             }});
  while (s.step()) {
  }
  const Completion done = s.take(id);
  EXPECT_EQ(done.finish, Finish::stopped);
  EXPECT_EQ(done.tokens, seen);
  EXPECT_EQ(seen.size(), 5u);
  EXPECT_EQ(s.throughput().prefill_tokens, 40);
  EXPECT_EQ(s.throughput().decode_tokens, 4);  // the first token comes of the prefill
  EXPECT_EQ(g.join(), 0);                      // both slots are free again
  EXPECT_EQ(g.join(), 1);
}

}  // namespace
}  // namespace sluice
