// data/tokenizer/pretokenizer.cpp -- PCRE2 with its JIT.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "data/tokenizer/pretokenizer.h"

#include <pcre2.h>

#include <vector>

#include "data/tokenizer/regex.h"
#include "kernels/base/check.h"

namespace sluice {

constexpr size_t kStackBytes = size_t(1) << 28;  // address space; used by words of many megabytes

static std::string pcre2_error(int code) {
  PCRE2_UCHAR text[256];
  pcre2_get_error_message(code, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

struct PreTokenizer::Compiled {
  std::vector<pcre2_code*> codes;
  ~Compiled() {
    for (pcre2_code* code : codes) pcre2_code_free(code);
  }
};

PreTokenizer::PreTokenizer(const std::string& name_or_regex)
    : PreTokenizer(pattern_of(name_or_regex)) {}

PreTokenizer::PreTokenizer(Pattern pattern) : pattern_(std::move(pattern)) {
  SLUICE_CHECK(!pattern_.empty(), "a pre-tokenizer without a regex");
  const auto compiled = std::make_shared<Compiled>();
  for (const std::string& regex : pattern_) {
    const std::string source = to_pcre2(regex);
    int error = 0;
    PCRE2_SIZE at = 0;
    pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(source.data()), source.size(),
                                     PCRE2_UTF | PCRE2_UCP, &error, &at, nullptr);
    SLUICE_CHECK(code, "regex \"", regex, "\": PCRE2: ", pcre2_error(error));
    pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);  // without a JIT it is only slower
    compiled->codes.push_back(code);
  }
  compiled_ = compiled;
}

struct PreTokenizer::Matcher::State {
  pcre2_match_data* match = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(1 << 15, kStackBytes, nullptr);
  State() { pcre2_jit_stack_assign(context, nullptr, stack); }
  ~State() {
    pcre2_jit_stack_free(stack);
    pcre2_match_context_free(context);
    pcre2_match_data_free(match);
  }
};

PreTokenizer::Matcher::Matcher(const PreTokenizer& of)
    : compiled_(of.compiled_), regexes_(of.pattern_.size()), state_(std::make_unique<State>()) {}
PreTokenizer::Matcher::~Matcher() = default;

PreTokenizer::Matcher::Range PreTokenizer::Matcher::find(size_t regex, std::string_view text,
                                                         size_t at) {
  const int found =
      pcre2_match(compiled_->codes[regex], reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                  at, PCRE2_NO_UTF_CHECK, state_->match, state_->context);
  if (found == PCRE2_ERROR_NOMATCH) return {text.size(), text.size()};
  SLUICE_CHECK(found >= 0, "pre-tokenizer: PCRE2: ", pcre2_error(found), ", at byte ", at,
               " of a text of ", text.size());
  const PCRE2_SIZE* range = pcre2_get_ovector_pointer(state_->match);
  return {range[0], range[1]};
}

}  // namespace sluice
