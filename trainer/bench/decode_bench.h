// trainer/bench/decode_bench.h -- how fast a config's model generates after a context.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "trainer/loop/config.h"

namespace sluice {

class GenerationSubject;  // subject.h: a config's model, for several benches

// How a long context gets into the caches: trainer/bench/subject.h has what made_up is.
enum class ContextFill : uint8_t { prefill, made_up };

struct DecodeBench {
  int64_t context_tokens = 1024;
  int64_t new_tokens = 32;  // measured, after some that warm up
  int64_t slots = 1;        // sequences at a time, all of that context
  bool most_slots = false;  // as many as the GPU's memory holds
  ContextFill fill = ContextFill::prefill;
};

// Random weights and tokens: the context, then token by token, each chosen (greedily) and back on
// the host. Throws if, on a short text, single steps give other logits than one piece.
nlohmann::ordered_json bench_decode(const GenerationSubject& subject, const DecodeBench& bench);
nlohmann::ordered_json bench_decode(const Config& config, const DecodeBench& bench);
std::string bench_decode_text(const nlohmann::ordered_json& report);

struct PrefillBench {
  int64_t context_tokens = 131072;
  int64_t chunk_tokens = 8192;
  int64_t points = 5;  // chunks that are timed, evenly from the first to the last
};

// Tokens a second of a prompt in chunks. Timed are some chunks, each after a context that is made
// up; the time of a chunk is linear in what lies before it, so the sum over all chunks is theirs by
// the trapezoid rule.
nlohmann::ordered_json bench_prefill(const GenerationSubject& subject, const PrefillBench& bench);
std::string bench_prefill_text(const nlohmann::ordered_json& report);

}  // namespace sluice
