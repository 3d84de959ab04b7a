// data/tokenizer/regex.h -- regexes of tokenizer files, said in PCRE2's words.
#pragma once

#include <string>
#include <string_view>

namespace sluice {

// `tokenizers` reads regexes with Oniguruma; this is the pattern with which PCRE2 finds the same
// matches. A construct that the two might read differently is an Error with its place and why.
std::string to_pcre2(std::string_view regex);

}  // namespace sluice
