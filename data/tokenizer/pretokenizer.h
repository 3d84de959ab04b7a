// data/tokenizer/pretokenizer.h -- cuts text into the words that BPE never merges across.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "data/tokenizer/patterns.h"
#include "data/tokenizer/utf8.h"

namespace sluice {

// By PCRE2. Cheap to copy; it does not change after it is made.
class PreTokenizer {
 public:
  explicit PreTokenizer(Pattern pattern);
  explicit PreTokenizer(const std::string& name_or_regex);

  const Pattern& pattern() const { return pattern_; }

  class Matcher;

 private:
  struct Compiled;
  Pattern pattern_;
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
      split_valid(text.substr(at, valid), word);
      at += valid;
      if (at < text.size()) word(text.substr(at++, 1));
    }
  }
  // The same for text that is known to be valid UTF-8.
  template <class Word>
  void split_valid(std::string_view text, Word&& word) {
    cut(text, 0, word);
  }

 private:
  struct Range {
    size_t begin, end;
  };
  // The next match of a regex of the pattern; at the end of the text if there is none.
  Range find(size_t regex, std::string_view text, size_t at);

  template <class Word>
  void cut(std::string_view text, size_t regex, Word& word) {
    const bool last = regex + 1 == regexes_;
    const auto piece = [&](size_t begin, size_t end) {
      if (begin == end) return;
      if (last) return word(text.substr(begin, end - begin));
      cut(text.substr(begin, end - begin), regex + 1, word);
    };
    for (size_t at = 0; at < text.size();) {
      const Range match = find(regex, text, at);
      piece(at, match.begin);  // between matches: kept
      piece(match.begin, match.end);
      at = match.end;
    }
  }

  struct State;
  std::shared_ptr<const Compiled> compiled_;
  size_t regexes_;
  std::unique_ptr<State> state_;
};

}  // namespace sluice
