// trainer/bench/prefill_bench.cpp -- chunks of a long prompt, some of them timed.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "trainer/bench/decode_bench.h"
#include "trainer/bench/subject.h"
#include "trainer/loop/measure.h"

namespace sluice {

nlohmann::ordered_json bench_prefill(const GenerationSubject& s, const PrefillBench& b) {
  SLUICE_CHECK(b.points >= 2 && b.chunk_tokens <= GenerationSubject::kText &&
                   b.context_tokens >= b.points * b.chunk_tokens &&
                   b.chunk_tokens >= GenerationSubject::kRealTokens,
               b.points, " chunks of ", b.chunk_tokens, " tokens in ", b.context_tokens,
               ", at least 2 of ", GenerationSubject::kRealTokens, " to ",
               GenerationSubject::kText);
  double largest = 0;
  const double difference = s.check_steps(&largest);
  const auto g = s.generator(
      {.slots = 1, .max_tokens = b.context_tokens, .prefill_chunk_tokens = b.chunk_tokens});
  const int64_t slot = g->join().value(), chunks = b.context_tokens / b.chunk_tokens;
  s.make_up(*g, slot, b.context_tokens - b.chunk_tokens);
  const Generator::Piece piece{slot, s.text(b.chunk_tokens)};
  const auto feed = [&](int64_t past) {
    g->assume_length(slot, past);
    const double from = monotonic_seconds();
    g->feed(CacheStep::prefill, {&piece, 1});
    if (s.on_gpu()) s.handles.wait()();
    return monotonic_seconds() - from;
  };
  feed(0);  // loads what is loaded once
  nlohmann::ordered_json points = nlohmann::ordered_json::array();
  double total = 0, last = 0;
  int64_t before = 0;
  for (int64_t i = 0; i < b.points; ++i) {
    const int64_t chunk = i * (chunks - 1) / (b.points - 1);
    const double seconds = feed(chunk * b.chunk_tokens);
    points.push_back({{"past_tokens", chunk * b.chunk_tokens}, {"seconds", seconds}});
    // Chunks before + 1 .. chunk, their times on the line between the two.
    const double n = double(chunk - before);
    total += i == 0 ? seconds : n * last + (seconds - last) * (n + 1) / 2;
    last = seconds, before = chunk;
  }
  return {{"logits_difference", difference},
          {"logits_largest", largest},
          {"device", s.on_gpu() ? gpu_name() : "cpu"},
          {"context_tokens", chunks * b.chunk_tokens},
          {"chunk_tokens", b.chunk_tokens},
          {"chunks", points},
          {"seconds", total},
          {"tokens_per_second", double(chunks * b.chunk_tokens) / total},
          {"arena_bytes", g->bytes().arena}};
}

std::string bench_prefill_text(const nlohmann::ordered_json& r) {
  std::string out =
      fmt::format("check    single steps and one piece: logits differ by {:.1e} of {:.2f}\n",
                  r["logits_difference"].get<double>(), r["logits_largest"].get<double>());
  for (const auto& p : r["chunks"])
    out +=
        fmt::format("chunk    of {} after {} tokens: {:.1f} ms\n", r["chunk_tokens"].get<int64_t>(),
                    p["past_tokens"].get<int64_t>(), p["seconds"].get<double>() * 1e3);
  return out + fmt::format(
                   "prefill  {} tokens: {:.2f} s, {:.0f} tokens/s; {:.2f} GiB of activations; {}\n",
                   r["context_tokens"].get<int64_t>(), r["seconds"].get<double>(),
                   r["tokens_per_second"].get<double>(), r["arena_bytes"].get<double>() / (1 << 30),
                   r["device"].get<std::string>());
}

}  // namespace sluice
