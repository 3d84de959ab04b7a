// data/tokenizer/regex.cpp -- a parser of the constructs whose meaning is known to be the same.
#include "data/tokenizer/regex.h"

#include "data/tokenizer/unicode.h"
#include "data/tokenizer/utf8.h"
#include "kernels/base/check.h"

namespace sluice {

namespace {

bool alphanumeric(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

bool contains(std::string_view set, char c) {
  return set.find(c) != std::string_view::npos;
}

class Translator {
 public:
  explicit Translator(std::string_view regex) : in_(regex) {}

  std::string translate() {
    if (utf8_run(in_, 0) != in_.size()) refuse("expected UTF-8");
    const bool empty = alternatives();
    if (!done()) refuse("a \")\" that closes nothing");
    if (empty) refuse("it can match nothing, which cuts no text");
    return std::move(out_);
  }

 private:
  [[noreturn]] void refuse(const std::string& why) const {
    throw Error(cat("regex \"", in_, "\": at byte ", at_, ": ", why));
  }
  bool done() const { return at_ == in_.size(); }
  bool next_is(std::string_view what) const { return in_.substr(at_).starts_with(what); }
  bool take(std::string_view what) {
    if (!next_is(what)) return false;
    at_ += what.size();
    return true;
  }

  // Each of these returns whether what it has read can match nothing.
  bool alternatives() {
    bool any_empty = false;
    do {
      bool empty = true;
      last_folded_ = 0;
      while (!done() && !next_is("|") && !next_is(")")) empty &= piece();
      any_empty |= empty;
      if (next_is("|")) out_ += '|';
    } while (take("|"));
    return any_empty;
  }

  bool piece() {
    const bool look = next_is("(?=") || next_is("(?!");
    const bool empty = atom();
    if (done() || !contains("*+?{", in_[at_])) return empty;
    if (look) refuse("a repeated lookahead");
    if (empty) refuse("a repetition of what can match nothing");
    if (fold_) refuse("a repetition in (?i:...), which engines fold in different ways");
    return quantifier();
  }

  bool quantifier() {
    if (in_[at_] == '{') return interval();
    const char kind = in_[at_++];
    out_ += kind;
    if (!done() && contains("?+", in_[at_])) out_ += in_[at_++];  // lazy, possessive
    if (!done() && contains("*+?{", in_[at_])) refuse("a repetition of a repetition");
    return kind != '+';
  }

  bool interval() {
    const size_t begin = at_++;
    const auto number = [&] {
      int n = -1;
      while (!done() && in_[at_] >= '0' && in_[at_] <= '9' && n < 1000)
        n = (n < 0 ? 0 : n * 10) + (in_[at_++] - '0');
      return n;
    };
    const int least = number();
    const bool range = take(",");
    const int most = range ? number() : least;
    if (least < 0 || least > 1000 || most > 1000 || (most >= 0 && most < least) || !take("}"))
      refuse("expected {n}, {n,} or {n,m} of at most 1000");
    if (!done() && contains("*+?{", in_[at_]))
      refuse("after {n,m} a \"+\" or \"?\" means one thing to Oniguruma and another to others");
    out_ += in_.substr(begin, at_ - begin);
    return least == 0;
  }

  bool atom() {
    if (take("(")) return group();
    if (next_is("[")) {
      character_class();
      return false;
    }
    if (take("\\")) {
      escape(false);
      return false;
    }
    if (contains("^$.", in_[at_]))
      refuse(cat("\"", in_[at_], "\": whether it stops at lines is not the same everywhere"));
    if (contains("*+?{}]", in_[at_])) refuse(cat("an unescaped \"", in_[at_], "\""));
    literal();
    return false;
  }

  bool group() {
    bool look = false, fold = false;
    if (take("?=")) {
      out_ += "(?=", look = true;
    } else if (take("?!")) {
      out_ += "(?!", look = true;
    } else if (take("?i:")) {
      out_ += "(?i:", fold = true;
    } else {
      if (next_is("?") && !next_is("?:")) refuse("a group other than (...), (?:, (?i:, (?=, (?!");
      take("?:");
      out_ += "(?:";
    }
    if (fold_) refuse("a group in (?i:...)");
    fold_ = fold;
    const bool empty = alternatives();
    if (!take(")")) refuse("expected \")\"");
    fold_ = false;
    out_ += ')';
    return empty || look;
  }

  // A character as it is. Oniguruma folds "ss" to sharp s and "fi", "st", ... to their ligatures.
  void literal() {
    const size_t n = utf8_character(in_, at_);
    const char c = in_[at_];
    if (fold_) {
      const char low = c >= 'A' && c <= 'Z' ? char(c + 32) : c;
      if (n > 1) refuse("a character beyond ASCII in (?i:...)");
      if ((last_folded_ == 's' && contains("st", low)) ||
          (last_folded_ == 'f' && contains("fil", low)))
        refuse(cat("\"", last_folded_, low, "\" in (?i:...), which also is one character"));
      last_folded_ = low;
    }
    put(utf8_code_point(in_, at_, n));
    at_ += n;
  }

  void put(char32_t code) {
    if (code < 0x80 && alphanumeric(char(code))) {
      out_ += char(code);
    } else {
      out_ += hex(code);
    }
  }

  static std::string hex(char32_t code) {
    std::string digits;
    for (; code > 0; code >>= 4) digits.insert(digits.begin(), "0123456789abcdef"[code & 15]);
    return "\\x{" + (digits.empty() ? "0" : digits) + "}";
  }

  // After the backslash. In a class, what stands for many characters goes into that class.
  void escape(bool in_class) {
    if (done()) refuse("ends with a backslash");
    const char c = in_[at_];
    const std::string_view space =
        "\\t-\\r\\x{85}\\p{Z}";  // White_Space; PCRE2's \s has U+180E too
    last_folded_ = 0;
    if (c == 's' || c == 'S') {
      ++at_;
      set(space, c == 'S', in_class);
    } else if (c == 'd') {
      ++at_;
      set(members("Nd"), false, in_class);
    } else if (c == 'p' || c == 'P') {
      ++at_;
      const size_t end = in_.find('}', at_);
      if (!take("{") || end == std::string_view::npos) refuse("expected \\p{...}");
      set(members(in_.substr(at_, end - at_)), c == 'P', in_class);
      at_ = end + 1;
    } else {
      put(escaped_character());
    }
  }

  char32_t escaped_character() {
    const char c = in_[at_];
    constexpr std::string_view names = "rntf", codes = "\r\n\t\f";
    if (const size_t i = names.find(c); i != std::string_view::npos) {
      ++at_;
      return char32_t(codes[i]);
    }
    if (c < '!' || c > '~' || alphanumeric(c))
      refuse(
          cat("\"\\", c, "\" is not one of \\p \\P \\s \\S \\d \\r \\n \\t \\f and punctuation"));
    ++at_;
    return char32_t(c);
  }

  std::string members(std::string_view category) {
    const char* newer = unicode_16_members(category);
    if (!newer)
      refuse(cat("category \"", category, "\": expected L Lu Ll Lt Lm Lo M N Nd P S Z or Han"));
    return cat("\\p{", category == "Han" ? "sc:" : "", category, "}", newer);
  }

  void set(std::string_view members, bool negated, bool in_class) {
    if (fold_) refuse("a set of characters in (?i:...)");
    if (!in_class) {
      out_ += cat(negated ? "[^" : "[", members, "]");
    } else if (negated) {
      refuse("a negated set in a class");
    } else {
      out_ += members;
    }
  }

  // [...], [^...], and [...&&[...]], which PCRE2 does not have: a lookahead says the same.
  void character_class() {
    const size_t before = out_.size();
    take("[");
    const bool negated = take("^");
    out_ += negated ? "[^" : "[";
    if (next_is("]")) refuse("an empty class, or a \"]\" that is not escaped");
    while (!next_is("]") && !next_is("&&")) class_item();
    out_ += ']';
    if (take("&&")) {
      if (negated) refuse("an intersection in a negated class");
      if (!next_is("[")) refuse("expected [...] after &&");
      const std::string left = out_.substr(before);
      out_.resize(before);
      out_ += "(?:(?=";
      character_class();
      out_ += ")" + left + ")";
    }
    if (!take("]")) refuse("expected \"]\"");
    last_folded_ = 0;
  }

  void class_item() {
    if (done()) refuse("expected \"]\"");
    if (next_is("[")) refuse("a class in a class");
    if (next_is("\\")) {
      const char c = at_ + 1 < in_.size() ? in_[at_ + 1] : 0;
      if (contains("sSdpP", c)) {
        ++at_;
        escape(true);
        if (next_is("-") && !next_is("-]")) refuse("a range that begins with a set");
        return;
      }
    }
    const bool dash = next_is("-");
    const char32_t first = class_character();
    if (dash && !next_is("]") && in_[at_ - 2] != '[' && in_[at_ - 2] != '^')
      refuse("a \"-\" that is neither escaped nor at an end of the class");
    put_in_class(first);
    if (!next_is("-") || next_is("-]")) return;
    ++at_;
    const char32_t last = class_character();
    if (last < first) refuse("a range that ends before it begins");
    out_ += '-';
    put_in_class(last);
  }

  char32_t class_character() {
    if (done()) refuse("expected \"]\"");
    if (take("\\")) {
      if (done()) refuse("ends with a backslash");
      return escaped_character();
    }
    if (next_is("[") || next_is("&&")) refuse("expected a character");
    const size_t n = utf8_character(in_, at_);
    at_ += n;
    return utf8_code_point(in_, at_ - n, n);
  }

  void put_in_class(char32_t code) {
    if (fold_ && code >= 0x80) refuse("a character beyond ASCII in (?i:...)");
    put(code);
  }

  std::string_view in_;
  size_t at_ = 0;
  std::string out_;
  bool fold_ = false;     // in (?i:...)
  char last_folded_ = 0;  // the literal before, in lower case
};

}  // namespace

std::string to_pcre2(std::string_view regex) {
  return Translator(regex).translate();
}

}  // namespace sluice
