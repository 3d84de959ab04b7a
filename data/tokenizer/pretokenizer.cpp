// data/tokenizer/pretokenizer.cpp -- PCRE2 with its JIT, over runs of valid UTF-8.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "data/tokenizer/pretokenizer.h"

#include <pcre2.h>

#include "kernels/base/check.h"

namespace sluice {

constexpr const char* kGpt2 =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr const char* kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

// The pattern as PCRE2 is given it: \s spelt out as Unicode's White_Space, since PCRE2's own \s
// also has U+180E, which the reference implementation's engine counts as no space.
static std::string for_pcre2(std::string_view regex) {
  const std::string space = R"(\t-\r\x{85}\p{Z})";
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < regex.size(); ++i) {
    const bool escape = regex[i] == '\\';
    const std::string_view two = regex.substr(i, 2);
    if (!escape && (regex[i] == '[' || regex[i] == ']')) in_class = regex[i] == '[';
    if (two == "\\s") {
      out += in_class ? space : "[" + space + "]";
    } else if (two == "\\S") {  // never in a class here
      out += "[^" + space + "]";
    } else {
      out += regex.substr(i, escape ? 2 : 1);
    }
    if (escape) ++i;
  }
  return out;
}

struct PreTokenizer::Compiled {
  pcre2_code* code = nullptr;
  ~Compiled() { pcre2_code_free(code); }
};

const char* PreTokenizer::regex(const std::string& pattern) {
  if (pattern == "gpt2") return kGpt2;
  if (pattern == "qwen2") return kQwen2;
  throw Error("pre-tokenizer \"" + pattern + "\": expected gpt2 or qwen2");
}

PreTokenizer::PreTokenizer(const std::string& pattern) : name_(pattern) {
  int error = 0;
  PCRE2_SIZE at = 0;
  const std::string source = for_pcre2(regex(pattern));
  const auto compiled = std::make_shared<Compiled>();
  compiled->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(source.data()), source.size(),
                                 PCRE2_UTF | PCRE2_UCP, &error, &at, nullptr);
  SLUICE_CHECK(compiled->code, "PCRE2 error ", error, " at ", at, " of the ", pattern, " pattern");
  pcre2_jit_compile(compiled->code, PCRE2_JIT_COMPLETE);  // without a JIT it is only slower
  compiled_ = compiled;
}

struct PreTokenizer::Matcher::State {
  pcre2_match_data* match;
  explicit State(const pcre2_code* code)
      : match(pcre2_match_data_create_from_pattern(code, nullptr)) {}
  ~State() { pcre2_match_data_free(match); }
};

PreTokenizer::Matcher::Matcher(const PreTokenizer& of)
    : compiled_(of.compiled_), state_(std::make_unique<State>(compiled_->code)) {}
PreTokenizer::Matcher::~Matcher() = default;

PreTokenizer::Matcher::Range PreTokenizer::Matcher::find(std::string_view text, size_t at) {
  const int found = pcre2_match(compiled_->code, reinterpret_cast<PCRE2_SPTR>(text.data()),
                                text.size(), at, PCRE2_NO_UTF_CHECK, state_->match, nullptr);
  if (found == PCRE2_ERROR_NOMATCH) return {text.size(), text.size()};
  SLUICE_CHECK(found > 0, "PCRE2 error ", found);
  const PCRE2_SIZE* range = pcre2_get_ovector_pointer(state_->match);
  return {range[0], range[1]};
}

}  // namespace sluice
