// data/tokenizer/pretokenizer.h -- cuts text into the words that BPE never merges across.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "data/tokenizer/utf8.h"

namespace sluice {

// The published patterns of GPT-2 and Qwen2, by PCRE2 with Unicode classes. Cheap to copy; it does
// not change after it is made.
class PreTokenizer {
 public:
  explicit PreTokenizer(const std::string& pattern);  // "gpt2" | "qwen2"; else an Error

  const std::string& pattern() const { return name_; }
  static const char* regex(const std::string& pattern);  // the source text

  class Matcher;

 private:
  struct Compiled;
  std::string name_;
  std::shared_ptr<const Compiled> compiled_;
};

// What one thread needs to match with: any number may use one PreTokenizer at once.
class PreTokenizer::Matcher {
 public:
  explicit Matcher(const PreTokenizer& of);
  ~Matcher();
  Matcher(const Matcher&) = delete;
  Matcher& operator=(const Matcher&) = delete;

  // Calls word() with consecutive pieces that together are `text`, whatever bytes it has: what is
  // not valid UTF-8 is cut out first and each such byte is a word of its own.
  template <class Word>
  void split(std::string_view text, Word&& word) {
    for (size_t at = 0; at < text.size();) {
      const size_t valid = utf8_run(text, at);
      cut(text.substr(at, valid), word);
      at += valid;
      if (at < text.size()) word(text.substr(at++, 1));
    }
  }

 private:
  struct Range {
    size_t begin, end;
  };
  Range find(std::string_view text, size_t at);  // the next match; at the end if there is none

  template <class Word>
  void cut(std::string_view text, Word& word) {
    for (size_t at = 0; at < text.size();) {
      const Range match = find(text, at);
      if (match.begin > at) word(text.substr(at, match.begin - at));  // between matches: kept
      if (match.end > match.begin) word(text.substr(match.begin, match.end - match.begin));
      at = match.end;
    }
  }

  struct State;
  std::shared_ptr<const Compiled> compiled_;
  std::unique_ptr<State> state_;
};

}  // namespace sluice
