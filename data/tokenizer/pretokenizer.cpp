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
  pcre2_match_data* match = nullptr;
  ~Compiled() {
    pcre2_match_data_free(match);
    pcre2_code_free(code);
  }
};

const char* PreTokenizer::regex(const std::string& pattern) {
  if (pattern == "gpt2") return kGpt2;
  if (pattern == "qwen2") return kQwen2;
  throw Error("pre-tokenizer \"" + pattern + "\": expected gpt2 or qwen2");
}

PreTokenizer::PreTokenizer(const std::string& pattern)
    : name_(pattern), compiled_(std::make_unique<Compiled>()) {
  int error = 0;
  PCRE2_SIZE at = 0;
  const std::string source = for_pcre2(regex(pattern));
  compiled_->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(source.data()), source.size(),
                                  PCRE2_UTF | PCRE2_UCP, &error, &at, nullptr);
  SLUICE_CHECK(compiled_->code, "PCRE2 error ", error, " at ", at, " of the ", pattern, " pattern");
  pcre2_jit_compile(compiled_->code, PCRE2_JIT_COMPLETE);  // without a JIT it is only slower
  compiled_->match = pcre2_match_data_create_from_pattern(compiled_->code, nullptr);
}
PreTokenizer::~PreTokenizer() = default;
PreTokenizer::PreTokenizer(PreTokenizer&&) noexcept = default;
PreTokenizer& PreTokenizer::operator=(PreTokenizer&&) noexcept = default;

// Bytes of the character at s[i], 0 if none starts there that UTF-8 allows.
static size_t character(std::string_view s, size_t i) {
  const auto at = [&](size_t k) { return i + k < s.size() ? uint8_t(s[i + k]) : uint8_t(0); };
  const auto follows = [&](size_t k) { return (at(k) & 0xC0) == 0x80; };
  const uint8_t a = at(0), b = at(1);
  if (a < 0x80) return 1;
  if (a >= 0xC2 && a <= 0xDF) return follows(1) ? 2 : 0;
  if (a >= 0xE0 && a <= 0xEF) {
    const bool ok = !(a == 0xE0 && b < 0xA0) && !(a == 0xED && b > 0x9F);  // overlong, surrogates
    return ok && follows(1) && follows(2) ? 3 : 0;
  }
  if (a >= 0xF0 && a <= 0xF4) {
    const bool ok = !(a == 0xF0 && b < 0x90) && !(a == 0xF4 && b > 0x8F);
    return ok && follows(1) && follows(2) && follows(3) ? 4 : 0;
  }
  return 0;
}

void PreTokenizer::split(std::string_view text,
                         const std::function<void(std::string_view)>& word) const {
  size_t begin = 0, i = 0;
  while (i < text.size()) {
    if (const size_t n = character(text, i)) {
      i += n;
      continue;
    }
    split_valid(text.substr(begin, i - begin), word);
    word(text.substr(i, 1));
    begin = ++i;
  }
  split_valid(text.substr(begin), word);
}

void PreTokenizer::split_valid(std::string_view text,
                               const std::function<void(std::string_view)>& word) const {
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  for (size_t at = 0; at < text.size();) {
    const int found = pcre2_match(compiled_->code, subject, text.size(), at, PCRE2_NO_UTF_CHECK,
                                  compiled_->match, nullptr);
    const PCRE2_SIZE* range = pcre2_get_ovector_pointer(compiled_->match);
    SLUICE_CHECK(found > 0 || found == PCRE2_ERROR_NOMATCH, "PCRE2 error ", found);
    if (found == PCRE2_ERROR_NOMATCH) return word(text.substr(at));
    if (range[0] > at) word(text.substr(at, range[0] - at));  // between matches: kept as it is
    word(text.substr(range[0], range[1] - range[0]));
    at = range[1];
  }
}

}  // namespace sluice
