// trainer/eval/answer_rule.cpp -- PCRE2 matches, and numbers without their dress.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "trainer/eval/answer_rule.h"

#include <pcre2.h>

#include <algorithm>
#include <cctype>

#include "kernels/base/check.h"

namespace sluice {

struct AnswerRule::Compiled {
  pcre2_code* code = nullptr;
  ~Compiled() { pcre2_code_free(code); }
};

AnswerRule::AnswerRule(const std::string& pattern, Which which, bool numeric)
    : which_(which), numeric_(numeric) {
  int error = 0;
  PCRE2_SIZE at = 0;
  auto compiled = std::make_shared<Compiled>();
  // Generated text may be invalid UTF-8; it never matches across such a place.
  compiled->code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                    PCRE2_UTF | PCRE2_MATCH_INVALID_UTF | PCRE2_MULTILINE, &error, &at, nullptr);
  if (!compiled->code) {
    PCRE2_UCHAR why[128];
    pcre2_get_error_message(error, why, sizeof why);
    throw Error(cat("the pattern \"", pattern, "\": ", reinterpret_cast<const char*>(why),
                    ", at character ", at));
  }
  compiled_ = std::move(compiled);
}

AnswerRule AnswerRule::last_number() {
  return {R"((?:(?<!\w)-)?\d[\d,]*(?:\.\d+)?)", Which::last, true};
}

AnswerRule AnswerRule::line() {
  return {R"(^\s*(\S.*?)\s*$)", Which::first, false};
}

AnswerRule AnswerRule::regex(const std::string& pattern) {
  return {pattern, Which::first, false};
}

std::optional<std::string> AnswerRule::extract(const std::string& text) const {
  const std::unique_ptr<pcre2_match_data, void (*)(pcre2_match_data*)> match(
      pcre2_match_data_create_from_pattern(compiled_->code, nullptr), pcre2_match_data_free);
  std::optional<std::string> answer;
  for (size_t from = 0; from <= text.size();) {
    const int groups = pcre2_match(compiled_->code, reinterpret_cast<PCRE2_SPTR>(text.data()),
                                   text.size(), from, 0, match.get(), nullptr);
    if (groups == PCRE2_ERROR_NOMATCH) break;
    SLUICE_CHECK(groups > 0, "PCRE2 error ", groups);
    const PCRE2_SIZE* span = pcre2_get_ovector_pointer(match.get());
    const size_t g = groups > 1 && span[2] != PCRE2_UNSET ? 2 : 0;
    answer = text.substr(span[g], span[g + 1] - span[g]);
    if (which_ == Which::first) break;
    from = std::max(span[1], from + 1);
  }
  return answer;
}

namespace {

std::string squeezed(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (std::isspace(static_cast<unsigned char>(c))) {
      if (!out.empty() && out.back() != ' ') out += ' ';
    } else {
      out += char(std::tolower(static_cast<unsigned char>(c)));
    }
  }
  if (!out.empty() && out.back() == ' ') out.pop_back();
  if (out.size() > 1 && out.back() == '.') out.pop_back();
  return out;
}

// None: it is no number.
std::optional<std::string> plain_number(const std::string& text) {
  std::string digits;
  bool minus = false, point = false;
  for (const char c : text) {
    if (c == '$' || c == ',' || c == '+') continue;
    if (c == '-' && digits.empty() && !minus) {
      minus = true;
    } else if (c == '.' && !point) {
      point = true;
      digits += c;
    } else if (c >= '0' && c <= '9') {
      digits += c;
    } else {
      return std::nullopt;
    }
  }
  if (digits.find_first_not_of('.') == std::string::npos) return std::nullopt;
  if (point) digits.resize(digits.find_last_not_of('0') + 1);
  if (digits.back() == '.') digits.pop_back();
  digits.erase(0, std::min(digits.find_first_not_of('0'), digits.size()));
  if (digits.empty() || digits[0] == '.') digits.insert(0, "0");
  return (minus && digits != "0" ? "-" : "") + digits;
}

}  // namespace

std::string normalised(const std::string& answer) {
  const std::string text = squeezed(answer);
  return plain_number(text).value_or(text);
}

}  // namespace sluice
