// trainer/eval/perplexity.h -- loss of named sets, with the digits of in-loop validation.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "trainer/eval/continuation.h"
#include "trainer/loop/validation.h"

namespace sluice {

// In rows and micro-batches of the loop's sizes.
SetLoss score_set(TokenScorer& scorer, const ValidationSet& set, const Report& report);

nlohmann::ordered_json to_json(const std::map<std::string, SetLoss>& sets);
std::string to_string(const std::map<std::string, SetLoss>& sets);  // a table

}  // namespace sluice
