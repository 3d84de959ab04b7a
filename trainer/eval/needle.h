// trainer/eval/needle.h -- a needle in a haystack: is a sentence found again, at any length and
// depth?
//
//   [end_of_text] haystack, needle in its middle, haystack | question | answer
//
// Needle: " The magic number of CITY is 1234567.", question: what it is, answer: " 1234567". Right
// if every token of the answer is the likeliest one, the ones before given: what greedy decoding
// would write.
#pragma once

#include <nlohmann/json.hpp>

#include "trainer/eval/accuracy.h"
#include "trainer/eval/continuation.h"

namespace sluice {

struct NeedleOptions {
  std::vector<int64_t> lengths;  // tokens of a document, everything counted
  std::vector<double> depths;    // 0: before the haystack, 1: between it and the question
  int64_t trials = 8;            // of each length and depth
  uint64_t seed = 1;
};

// Trials in order of length, depth, number; each is a function of the seed and these three. The
// stretch of `haystack` (tokens of real text) is drawn, the needle goes to the nearest end of a
// sentence before its depth, if one is within 64 tokens.
std::vector<Continuation> make_needles(const Tokenizer& tokenizer,
                                       const std::vector<int32_t>& haystack,
                                       const NeedleOptions& options);

struct NeedleCell {
  Accuracy exact;   // trials
  Accuracy tokens;  // of the answers
  double loss = 0;  // nats a token of the answers
};
using NeedleGrid = std::vector<std::vector<NeedleCell>>;  // by length, by depth
NeedleGrid grade(const NeedleOptions& options, const std::vector<ContinuationScore>& scores);

nlohmann::ordered_json to_json(const NeedleOptions& options, const NeedleGrid& grid);
std::string to_string(const NeedleOptions& options, const NeedleGrid& grid);

}  // namespace sluice
