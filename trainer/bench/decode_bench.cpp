// trainer/bench/decode_bench.cpp -- correctness first, then the time of a step of all slots.
#include "trainer/bench/decode_bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "trainer/bench/subject.h"
#include "trainer/loop/measure.h"

namespace sluice {

namespace {

constexpr int64_t kWarm = 3;  // steps: on CUDA the second one records

void prefill(const GenerationSubject& s, Generator& g, int64_t slot, int64_t tokens) {
  constexpr int64_t kPiece = GenerationSubject::kRealTokens;
  for (int64_t at = 0; at < tokens; at += kPiece) {
    const Generator::Piece piece{slot, s.text(std::min(kPiece, tokens - at))};
    g.feed(CacheStep::prefill, {&piece, 1});
  }
}

// The most slots that there is memory for: what one needs, then down from what should fit.
std::unique_ptr<Generator> largest(const GenerationSubject& s, GeneratorOptions o) {
  o.slots = 1;
  const int64_t tokens = std::exchange(o.max_tokens, 256);
  const GeneratorBytes one = s.generator(o)->bytes();
  o.max_tokens = tokens;
  const int64_t each = one.state_per_slot + tokens * one.cache_per_token;
  constexpr int64_t kOther = int64_t(1) << 30;  // activations, kernels
  for (o.slots = (free_device_bytes() - kOther) / each; o.slots > 0;
       o.slots -= std::max<int64_t>(1, o.slots / 50)) {
    try {
      return s.generator(o);
    } catch (const Error& e) {
      if (std::string(e.what()).find("cudaErrorMemoryAllocation") == std::string::npos) throw;
    }
  }
  throw Error(cat("no slot of ", tokens, " tokens fits: it needs ", each, " bytes"));
}

std::vector<double> step_seconds(const GenerationSubject& s, Generator& g, int64_t steps) {
  const int64_t slots = g.options().slots;
  const std::vector<SampleRule> rules(static_cast<size_t>(slots));
  std::vector<int32_t> tokens(size_t(slots), s.text(1)[0]);
  std::vector<double> seconds;
  for (int64_t i = 0; i < kWarm + steps; ++i) {
    const double from = monotonic_seconds();
    std::vector<Generator::Piece> pieces;
    for (int64_t n = 0; n < slots; ++n)
      pieces.push_back({n, std::span(tokens).subspan(size_t(n), 1)});
    const Generator::Sampled next = g.sample(g.feed(CacheStep::decode, pieces), rules);
    std::copy(next.tokens.begin(), next.tokens.end(), tokens.begin());
    if (i >= kWarm) seconds.push_back(monotonic_seconds() - from);
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds;
}

// Least bytes of a step: weights once, states read and written, the rows of every context read.
double step_bytes(const GenerationSubject& s, const GeneratorBytes& b, int64_t slots,
                  int64_t context) {
  double weights = 0;
  for (const Shard& shard : s.params->shards())
    if (s.params->spec(shard.id).name != "embedding.weight")
      weights += double(s.params->spec(shard.id).numel()) * double(size_of(s.dtype()));
  return weights + double(slots) *
                       (2 * double(b.state_per_slot) + double(context) * double(b.cache_per_token));
}

}  // namespace

nlohmann::ordered_json bench_decode(const GenerationSubject& s, const DecodeBench& bench) {
  SLUICE_CHECK(s.on_gpu() || !bench.most_slots, "the most slots are looked for on a GPU only");
  double most = 0;
  const double difference = s.check_steps(&most);
  const double copy_rate = s.on_gpu() ? measure_copy_rate(s.ctx) : 0;

  const int64_t context = bench.context_tokens;
  const GeneratorOptions options{.slots = bench.slots,
                                 .max_tokens = context + bench.new_tokens + kWarm,
                                 .prefill_chunk_tokens = GenerationSubject::kRealTokens};
  const auto g = bench.most_slots ? largest(s, options) : s.generator(options);
  const int64_t slots = g->options().slots;
  const double begin = monotonic_seconds();
  for (int64_t n = 0; n < slots; ++n) {
    g->join();
    if (bench.fill == ContextFill::prefill)
      prefill(s, *g, n, context);
    else if (n == 0)
      s.make_up(*g, n, context);
    else
      s.repeat(*g, n);
  }
  if (s.on_gpu()) s.handles.wait()();
  const double prefill_seconds = monotonic_seconds() - begin;
  const std::vector<double> seconds = step_seconds(s, *g, bench.new_tokens);
  const double step = seconds[seconds.size() / 2],
               bytes = step_bytes(s, g->bytes(), slots, context);
  nlohmann::ordered_json report{
      {"logits_difference", difference},
      {"logits_largest", most},
      {"parameters", s.params->numel()},
      {"device", s.on_gpu() ? gpu_name() : "cpu"},
      {"threads", s.threads},
      {"slots", slots},
      {"context_tokens", context},
      {"context", bench.fill == ContextFill::prefill ? "prefilled" : "made up"},
      {"decode_ms", step * 1e3},
      {"decode_tokens_per_second", double(slots) / step},
      {"step_bytes", bytes},
      {"bytes_per_second", bytes / step},
      {"state_bytes_per_slot", g->bytes().state_per_slot},
      {"cache_bytes_per_token", g->bytes().cache_per_token},
      {"cache_bytes", g->bytes().cache_total},
      {"arena_bytes", g->bytes().arena}};
  if (copy_rate > 0) report["copy_bytes_per_second"] = copy_rate;
  if (bench.fill == ContextFill::prefill)
    report["prefill_tokens_per_second"] = double(slots) * double(context) / prefill_seconds;
  return report;
}

nlohmann::ordered_json bench_decode(const Config& config, const DecodeBench& bench) {
  return bench_decode(GenerationSubject(config), bench);
}

std::string bench_decode_text(const nlohmann::ordered_json& r) {
  const auto number = [&](const char* key) { return r[key].get<double>(); };
  std::string out = fmt::format(
      "check    single steps and one piece: logits differ by {:.1e} of {:.2f}\n"
      "context  {} tokens, {}, {} sequences, {} threads, {}\n",
      number("logits_difference"), number("logits_largest"), r["context_tokens"].get<int64_t>(),
      r["context"].get<std::string>(), r["slots"].get<int64_t>(), r["threads"].get<int>(),
      r["device"].get<std::string>());
  if (r.contains("prefill_tokens_per_second"))
    out += fmt::format("prefill  {:.0f} tokens/s\n", number("prefill_tokens_per_second"));
  out += fmt::format("decode   {:.3f} ms a step (median), {:.0f} tokens/s, {:.0f} GB/s",
                     number("decode_ms"), number("decode_tokens_per_second"),
                     number("bytes_per_second") * 1e-9);
  if (r.contains("copy_bytes_per_second"))
    out += fmt::format(", {:.0f} % of a copy's {:.0f}",
                       100 * number("bytes_per_second") / number("copy_bytes_per_second"),
                       number("copy_bytes_per_second") * 1e-9);
  return out +
         fmt::format(
             "\nmemory   state {:.1f} KiB a sequence, cache {:.1f} KiB a token, {:.2f} GiB in "
             "all, {:.2f} GiB of activations\n",
             number("state_bytes_per_slot") / 1024, number("cache_bytes_per_token") / 1024,
             number("cache_bytes") / (1 << 30), number("arena_bytes") / (1 << 30));
}

}  // namespace sluice
