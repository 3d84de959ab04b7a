// data/tokenizer/patterns.h -- the published pre-tokenizers, by name.
#pragma once

#include <string>
#include <vector>

namespace sluice {

// Regexes that cut text one after the other: each cuts the pieces that those before it left.
using Pattern = std::vector<std::string>;

// gpt2 | qwen2 | cl100k | o200k | kimi | deepseek-v3; any other text is one regex of its own.
Pattern pattern_of(const std::string& name_or_regex);

// The name if it has one, else the regexes, a line each.
std::string pattern_name(const Pattern& pattern);

}  // namespace sluice
