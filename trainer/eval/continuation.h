// trainer/eval/continuation.h -- how likely is a text after another one? Many of them, packed.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "data/tokenizer/encoder.h"
#include "trainer/eval/token_scorer.h"

namespace sluice {

// tokens[begin ..] are scored, each after all that come before it.
struct Continuation {
  std::vector<int32_t> tokens;  // a document: end_of_text comes first
  int64_t begin = 1;            // above 0, below tokens.size()
  std::string name;             // for messages: "FILE:12"
};

// As lm-evaluation-harness cuts: blanks at the end of `context` belong to the continuation, both
// are encoded as one text, and the continuation is what follows the number of tokens that the
// context has when it is encoded alone. Throws if nothing is left for it.
Continuation make_continuation(Encoder& encoder, int32_t end_of_text, std::string context,
                               std::string continuation, const std::string& name);

struct ContinuationScore {
  double log_likelihood = 0;  // nats, of all its tokens
  int64_t tokens = 0;
  int64_t predicted = 0;  // of them, those that were the likeliest token
  bool exact() const { return predicted == tokens; }
};

using Report = std::function<void(int64_t done, int64_t total)>;  // for a progress bar

// In order. They are packed, one after the other, as documents of micro-batches of batch_tokens
// (or fewer, if all of them are fewer). Throws for one that is longer.
std::vector<ContinuationScore> score_continuations(TokenScorer& scorer,
                                                   std::span<const Continuation> list,
                                                   int64_t batch_tokens, const Report& report);

}  // namespace sluice
