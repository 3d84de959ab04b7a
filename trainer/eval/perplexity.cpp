// trainer/eval/perplexity.cpp -- a set through a scorer; numbers for people and programs.
#include "trainer/eval/perplexity.h"

#include <fmt/format.h>

#include <cmath>

namespace sluice {

SetLoss score_set(TokenScorer& scorer, const ValidationSet& set, const Report& report) {
  MicroBatchBuffer buffer = set.make_buffer();
  scorer.plan(buffer.batch());
  return measure_set(
      set, buffer.batch(), [&](const MicroBatch& batch) { return scorer.score(batch); },
      [&](int64_t done) { report(done, set.micro_batches()); });
}

nlohmann::ordered_json to_json(const std::map<std::string, SetLoss>& sets) {
  nlohmann::ordered_json all;
  for (const auto& [name, s] : sets) {
    all[name] = {{"loss", s.loss()}, {"perplexity", std::exp(s.loss())}, {"tokens", s.tokens}};
    if (s.text_bytes)
      all[name].update({{"bits_per_byte", *s.bits_per_byte()}, {"text_bytes", *s.text_bytes}});
    if (s.chance) all[name].update({{"accuracy", s.accuracy()}, {"chance", *s.chance}});
  }
  return {{"kind", "perplexity"}, {"sets", all}};
}

std::string to_string(const std::map<std::string, SetLoss>& sets) {
  std::string table =
      fmt::format("{:<20} {:>10} {:>8} {:>11}\n", "set", "tokens", "loss", "perplexity");
  for (const auto& [name, s] : sets) {
    table += fmt::format("{:<20} {:>10} {:>8.4f} {:>11.4f}", name, s.tokens, s.loss(),
                         std::exp(s.loss()));
    if (s.text_bytes) table += fmt::format("  bits/byte {:.4f}", *s.bits_per_byte());
    if (s.chance)
      table += fmt::format("  accuracy {:.4f} (chance {:.4f})", s.accuracy(), *s.chance);
    table += "\n";
  }
  return table;
}

}  // namespace sluice
