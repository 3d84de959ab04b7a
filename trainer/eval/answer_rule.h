// trainer/eval/answer_rule.h -- the answer in a text, and when two answers are the same.
#pragma once

#include <memory>
#include <optional>
#include <string>

namespace sluice {

// A regular expression (PCRE2) and which of its matches is the answer: its first group, or all of
// it if it has none.
class AnswerRule {
 public:
  static AnswerRule last_number();                      // "1,234.50", "-3": of several, the last
  static AnswerRule line();                             // the first that is not blank
  static AnswerRule regex(const std::string& pattern);  // the first match; throws for a bad pattern

  std::optional<std::string> extract(const std::string& text) const;  // none: nothing matches
  bool numeric() const { return numeric_; }  // answers are numbers, in the task file as well

 private:
  enum class Which : uint8_t { first, last };
  AnswerRule(const std::string& pattern, Which which, bool numeric);

  struct Compiled;
  std::shared_ptr<const Compiled> compiled_;  // shared: a rule is copied freely
  Which which_;
  bool numeric_;
};

// Of two answers that are the same, the same text: blanks at the ends are gone and others are one
// blank, ASCII letters are lower case, a last full stop is gone; a number has neither "$" nor ","
// nor zeros that say nothing ("$1,200.50" is "1200.5", "145.0" is "145").
std::string normalised(const std::string& answer);

}  // namespace sluice
