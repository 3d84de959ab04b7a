// data/tokenizer/patterns.cpp -- as the models' files have them.
#include "data/tokenizer/patterns.h"

#include "kernels/base/check.h"

namespace sluice {

struct Named {
  const char* name;
  Pattern pattern;
};

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"

static const std::vector<Named>& named_patterns() {
  static const std::vector<Named> all = {
      {"gpt2", {R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"}},
      {"qwen2",
       {CONTRACTIONS
        R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"}},
      {"cl100k",  // Llama 3 too
       {CONTRACTIONS
        R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"}},
      {"o200k",
       {R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)" CONTRACTIONS
        R"(?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)" CONTRACTIONS
        R"(?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)"}},
      {"kimi",
       {R"([\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*)"
        R"([\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+)" CONTRACTIONS
        R"(?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+)"
        R"([\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*)" CONTRACTIONS
        R"(?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"}},
      {"deepseek-v3",
       {R"(\p{N}{1,3})", R"([一-龥぀-ゟ゠-ヿ]+)",
        R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+)"
        "|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+"
        R"(|\s+(?!\S)|\s+)"}},
  };
  return all;
}

Pattern pattern_of(const std::string& name_or_regex) {
  for (const Named& n : named_patterns())
    if (n.name == name_or_regex) return n.pattern;
  // Letters and digits alone would be a strange regex: it is a name, misspelt.
  const bool is_name = name_or_regex.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-_.") ==
                       std::string::npos;
  if (is_name) {
    std::string names;
    for (const Named& n : named_patterns()) names += cat(n.name, ", ");
    throw Error(cat("pattern \"", name_or_regex, "\": expected ", names, "or a regex"));
  }
  return {name_or_regex};
}

std::string pattern_name(const Pattern& pattern) {
  for (const Named& n : named_patterns())
    if (n.pattern == pattern) return n.name;
  std::string lines;
  for (const std::string& regex : pattern) lines += (lines.empty() ? "" : "\n") + regex;
  return lines;
}

}  // namespace sluice
