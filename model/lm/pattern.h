// model/lm/pattern.h -- which mixer each layer has.
//
// ratio L:F is a period of L linear layers, then F full ones, repeated; with L > 0 and F > 0 the
// last layer is full as well, as in the published models. 0:1 is all full, 1:0 all linear.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace sluice {

struct LmConfig;

bool is_ratio(const std::string& text);  // "3:1"
bool is_known_mixer(const std::string& kind);
const char* known_mixers_text();  // "one of kda, gdn, ..."

std::vector<std::string> layer_pattern(const LmConfig& config);
std::string pattern_problem(const LmConfig& config);  // empty: none
// Keys of `kda` that no layer of the pattern has a use for: gdn has one gate law, mamba2 no beta.
std::vector<std::pair<std::string, std::string>> unused_kda_keys(const LmConfig& config);

}  // namespace sluice
