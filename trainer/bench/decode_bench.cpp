// trainer/bench/decode_bench.cpp -- correctness first, then the two rates of a generator.
#include "trainer/bench/decode_bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <thread>

#include "kernels/tensor/rng.h"
#include "model/autograd/plain_store.h"
#include "model/generate/generator.h"
#include "trainer/loop/measure.h"

namespace sluice {

namespace {

constexpr int64_t kPrefillChunk = 512;

struct Texts {
  Texts(int64_t slots, int64_t tokens, int64_t vocab) {
    for (int64_t s = 0; s < slots; ++s) {
      std::vector<int32_t>& text = of.emplace_back();
      for (int64_t i = 0; i < tokens; ++i)
        text.push_back(int32_t(random_uniform(uint64_t(s), uint64_t(i)) * double(vocab)));
    }
  }
  std::span<const int32_t> piece(int64_t slot, int64_t begin, int64_t count) const {
    return std::span(of[size_t(slot)]).subspan(size_t(begin), size_t(count));
  }
  std::vector<std::vector<int32_t>> of;
};

void prefill(Generator& g, const Texts& texts, int64_t slot, int64_t begin, int64_t end) {
  for (int64_t at = begin; at < end; at += kPrefillChunk) {
    const Generator::Piece piece{slot, texts.piece(slot, at, std::min(kPrefillChunk, end - at))};
    g.feed(CacheStep::prefill, {&piece, 1});
  }
}

// The first kPrefillChunk tokens, and rows like theirs for the others.
void make_up(const Context& ctx, Generator& g, const Texts& texts, int64_t slot, int64_t context) {
  const int64_t real = std::min(kPrefillChunk, context);
  prefill(g, texts, slot, 0, real);
  uint64_t key = uint64_t(slot);
  for (const MixerCache& layer : g.cache())
    for (const Buffer& buffer : layer.rows) {
      const int64_t width = buffer.view().numel() / buffer.view().dim(0) / buffer.view().dim(1);
      float* rows = buffer.view().row<float>(slot);  // [max_tokens, width]
      double squares = 0;
      for (int64_t i = 0; i < real * width; ++i) squares += double(rows[i]) * double(rows[i]);
      // Uniform in +-r has a mean square of r^2 / 3.
      const double r = std::sqrt(3 * squares / double(real * width));
      ++key;
      parallel_for(ctx, context - real, [&](int64_t t) {
        for (int64_t i = (real + t) * width; i < (real + t + 1) * width; ++i)
          rows[i] = float((2 * random_uniform(key, uint64_t(i)) - 1) * r);
      });
    }
  g.assume_length(slot, context);
}

// One token of every slot.
Tensor decode(Generator& g, const Texts& texts, int64_t slots, int64_t at) {
  std::vector<Generator::Piece> pieces;
  for (int64_t s = 0; s < slots; ++s) pieces.push_back({s, texts.piece(s, at, 1)});
  return g.feed(CacheStep::decode, pieces);
}

// Largest difference of the logits after a short text: token by token, and in one piece.
double step_difference(const Context& ctx, ParamStore& params, const Lm& lm, double* largest) {
  constexpr int64_t kTokens = 72, kSingle = 8;
  const Texts texts(2, kTokens, *lm.config().vocab_size);
  Generator g(ctx, params, lm, DType::f32,
              {.slots = 2, .max_tokens = kTokens, .prefill_chunk_tokens = kPrefillChunk});
  g.join();
  g.join();
  const Generator::Piece whole{0, texts.piece(0, 0, kTokens)};
  const Tensor expected = g.feed(CacheStep::prefill, {&whole, 1});
  const std::vector<float> want(expected.row<float>(0), expected.row<float>(0) + expected.dim(1));
  const Generator::Piece most{1, texts.piece(0, 0, kTokens - kSingle)};
  g.feed(CacheStep::prefill, {&most, 1});
  Tensor got;
  for (int64_t t = kTokens - kSingle; t < kTokens; ++t) {
    const Generator::Piece one{1, texts.piece(0, t, 1)};
    got = g.feed(CacheStep::decode, {&one, 1});
  }
  double worst = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    worst = std::max(worst, double(std::fabs(got.row<float>(0)[i] - want[i])));
    *largest = std::max(*largest, double(std::fabs(want[i])));
  }
  return worst;
}

}  // namespace

nlohmann::ordered_json bench_decode(const Config& config, const DecodeBench& bench) {
  const Config& c = config;
  if (!c.model.vocab_size) throw Error("model.vocab_size: expected a size (no tokenizer is read)");
  const int threads =
      c.run.threads ? int(*c.run.threads) : int(std::max(1u, std::thread::hardware_concurrency()));
  ThreadPool pool(threads);
  Context ctx;
  ctx.threads = &pool;
  PlainStore params(DType::f32);
  const Lm lm(c.model, params);
  params.allocate();
  initialize(params, uint64_t(c.run.seed));

  double largest = 0;
  const double difference = step_difference(ctx, params, lm, &largest);
  // f32 sums in other orders, through all layers.
  SLUICE_CHECK(difference < 1e-4 * largest, "single steps give logits that are off by ", difference,
               " of ", largest);

  const int64_t context = bench.context_tokens, all = context + bench.new_tokens + 1;
  const Texts texts(bench.slots, all, *c.model.vocab_size);
  Generator g(ctx, params, lm, DType::f32,
              {.slots = bench.slots, .max_tokens = all, .prefill_chunk_tokens = kPrefillChunk});
  const double begin = monotonic_seconds();
  for (int64_t s = 0; s < bench.slots; ++s) {
    g.join();
    if (bench.fill == ContextFill::prefill)
      prefill(g, texts, s, 0, context);
    else
      make_up(ctx, g, texts, s, context);
  }
  const double prefill_seconds = monotonic_seconds() - begin;
  std::vector<double> seconds;
  for (int64_t i = 0; i <= bench.new_tokens; ++i) {
    const double from = monotonic_seconds();
    decode(g, texts, bench.slots, context + i);
    if (i > 0) seconds.push_back(monotonic_seconds() - from);
  }
  std::sort(seconds.begin(), seconds.end());
  const double step = seconds[seconds.size() / 2], slots = double(bench.slots);
  nlohmann::ordered_json report{
      {"logits_difference", difference},
      {"logits_largest", largest},
      {"parameters", params.numel()},
      {"threads", threads},
      {"slots", bench.slots},
      {"context_tokens", context},
      {"context", bench.fill == ContextFill::prefill ? "prefilled" : "made up"},
      {"decode_ms", step * 1e3},
      {"decode_tokens_per_second", slots / step},
      {"state_bytes_per_slot", g.bytes().state_per_slot},
      {"cache_bytes_per_token", g.bytes().cache_per_token}};
  if (bench.fill == ContextFill::prefill)
    report["prefill_tokens_per_second"] = slots * double(context) / prefill_seconds;
  return report;
}

std::string bench_decode_text(const nlohmann::ordered_json& r) {
  std::string out = fmt::format(
      "check    single steps and one piece: logits differ by {:.1e} of {:.2f}\n"
      "context  {} tokens, {}, {} sequences, {} threads\n",
      r["logits_difference"].get<double>(), r["logits_largest"].get<double>(),
      r["context_tokens"].get<int64_t>(), r["context"].get<std::string>(),
      r["slots"].get<int64_t>(), r["threads"].get<int>());
  if (r.contains("prefill_tokens_per_second"))
    out += fmt::format("prefill  {:.0f} tokens/s\n", r["prefill_tokens_per_second"].get<double>());
  return out + fmt::format(
                   "decode   {:.3f} ms a step (median), {:.0f} tokens/s\n"
                   "memory   state {:.1f} KiB a sequence, cache {:.1f} KiB a token\n",
                   r["decode_ms"].get<double>(), r["decode_tokens_per_second"].get<double>(),
                   r["state_bytes_per_slot"].get<double>() / 1024,
                   r["cache_bytes_per_token"].get<double>() / 1024);
}

}  // namespace sluice
