// trainer/bench/decode_bench.h -- how fast a config's model generates after a context.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "trainer/loop/config.h"

namespace sluice {

// How a long context gets into the caches. made_up: after a prefill of its first tokens the other
// rows are filled with random numbers of the root mean square of these, and states stay as they
// are: a decode step then reads as much and computes as much, in a small part of the time.
enum class ContextFill : uint8_t { prefill, made_up };

struct DecodeBench {
  int64_t context_tokens = 1024;
  int64_t new_tokens = 32;  // measured, after one that warms up
  int64_t slots = 1;        // sequences at a time, all of that context
  ContextFill fill = ContextFill::prefill;
};

// Random weights and tokens: the context, then token by token. Throws if, on a short text, single
// steps give other logits than one piece.
nlohmann::ordered_json bench_decode(const Config& config, const DecodeBench& bench);
std::string bench_decode_text(const nlohmann::ordered_json& report);

}  // namespace sluice
