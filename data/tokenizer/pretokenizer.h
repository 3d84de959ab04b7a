// data/tokenizer/pretokenizer.h -- cuts text into the words that BPE never merges across.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace sluice {

// The published patterns of GPT-2 and Qwen2, by PCRE2 with Unicode classes.
class PreTokenizer {
 public:
  explicit PreTokenizer(const std::string& pattern);  // "gpt2" | "qwen2"; else an Error
  ~PreTokenizer();
  PreTokenizer(PreTokenizer&&) noexcept;
  PreTokenizer& operator=(PreTokenizer&&) noexcept;

  const std::string& pattern() const { return name_; }
  static const char* regex(const std::string& pattern);  // the source text

  // Calls word() with consecutive pieces that together are `text`, whatever bytes it has: what is
  // not valid UTF-8 is cut out first and each such byte is a word of its own.
  void split(std::string_view text, const std::function<void(std::string_view)>& word) const;

 private:
  void split_valid(std::string_view text, const std::function<void(std::string_view)>& word) const;

  struct Compiled;
  std::string name_;
  std::unique_ptr<Compiled> compiled_;
};

}  // namespace sluice
