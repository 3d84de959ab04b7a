// data/tokenizer/added_tokens.h -- tokens that are whole stretches of text, found before any BPE.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace sluice {

struct AddedToken {
  int32_t id;
  std::string content;
  bool special = true;  // never in plain text
  bool normalized =
      false;  // looked for in the normalised text, itself normalised; else before that
  bool single_word = false, lstrip = false, rstrip = false;  // of special ones only
};

// Finds the leftmost of some contents, the longest of those that begin there. Special ones take
// part in the search, so that nothing is found inside them, but are plain text then.
class AddedTokens {
 public:
  static constexpr int32_t kText = -1;

  void add(const std::string& content, int32_t id_or_text);
  bool finds() const { return finds_; }  // has more than special ones

  // Calls token(id) for what is found, text(piece) for what is between.
  template <class Text, class Token>
  void split(std::string_view all, Text&& text, Token&& token) const {
    size_t begin = 0;
    for (size_t at = 0; finds_ && at < all.size();) {
      const Found f = next(all, at);
      at = f.end;
      if (f.id == kText) continue;
      if (f.begin > begin) text(all.substr(begin, f.begin - begin));
      token(f.id);
      begin = f.end;
    }
    if (begin < all.size()) text(all.substr(begin));
  }

 private:
  struct Entry {
    std::string content;
    int32_t id;
  };
  struct Found {
    size_t begin, end;
    int32_t id;
  };
  Found next(std::string_view text, size_t at) const;  // at the end with kText: nothing
  const Entry* longest_at(std::string_view text, size_t at) const;

  std::vector<Entry> entries_;  // sorted by content
  bool begins_[256] = {};       // bytes that a content begins with
  int only_ = -1;               // the one such byte, if there is one
  bool finds_ = false;
};

}  // namespace sluice
