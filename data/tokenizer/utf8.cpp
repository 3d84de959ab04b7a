// data/tokenizer/utf8.cpp -- table 3-7 of the Unicode standard, and eight ASCII bytes at a time.
#include "data/tokenizer/utf8.h"

#include <cstring>

namespace sluice {

size_t utf8_character(std::string_view s, size_t i) {
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

size_t utf8_run(std::string_view s, size_t i) {
  const size_t begin = i;
  while (i < s.size()) {
    uint64_t eight;
    while (i + 8 <= s.size()) {
      std::memcpy(&eight, s.data() + i, 8);
      if (eight & 0x8080808080808080u) break;
      i += 8;
    }
    if (i == s.size()) break;
    const size_t n = utf8_character(s, i);
    if (n == 0) break;
    i += n;
  }
  return i - begin;
}

char32_t utf8_code_point(std::string_view s, size_t i, size_t n) {
  const uint8_t first = uint8_t(s[i]);
  if (n == 1) return first;
  char32_t code = first & (0x7F >> n);
  for (size_t k = 1; k < n; ++k) code = code << 6 | (uint8_t(s[i + k]) & 0x3F);
  return code;
}

}  // namespace sluice
