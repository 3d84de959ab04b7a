// data/tokenizer/normalizer.cpp -- utf8proc, for the few places that it could change.
#include "data/tokenizer/normalizer.h"

#include <utf8proc.h>

#include <cstdint>
#include <cstdlib>
#include <vector>

#include "data/tokenizer/unicode.h"
#include "data/tokenizer/utf8.h"
#include "kernels/base/check.h"

namespace sluice {

// Most characters are inert: they are their own NFC and never combine with what is before them. So
// a text may be cut before any of them and each part normalised by itself.
static std::vector<bool> find_inert() {
  std::vector<bool> inert(0x110000, true);
  for (size_t c = 0x1161; c <= 0x11C2; ++c)  // Hangul vowels and finals
    if (c <= 0x1175 || c >= 0x11A8) inert[c] = false;
  for (utf8proc_int32_t c = 0x80; c < 0x110000; ++c) {
    const utf8proc_property_t* p = utf8proc_get_property(c);
    if (p->combining_class != 0) inert[size_t(c)] = false;
    if (p->decomp_seqindex == UINT16_MAX || p->decomp_type != 0)
      continue;  // none, or not canonical
    utf8proc_int32_t parts[8];
    const auto n = utf8proc_decompose_char(c, parts, 8, UTF8PROC_DECOMPOSE, nullptr);
    SLUICE_CHECK(n > 0 && n <= 8, "utf8proc decomposes ", c, " into ", n, " characters");
    for (auto i = n - 1; i > 0; --i) inert[size_t(parts[i])] = false;  // can join what is before
    const auto options = utf8proc_option_t(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    if (utf8proc_normalize_utf32(parts, n, options) != 1 || parts[0] != c)
      inert[size_t(c)] = false;  // never in NFC
  }
  for (char32_t c = 0; c < 0x110000; ++c)
    if (newer_than_nfc(c)) inert[c] = true;
  return inert;
}

static bool is_inert(char32_t c) {
  static const std::vector<bool> inert = find_inert();
  return c < 0x300 || inert[c];
}

// The first character from `at` on that is not inert; the end if there is none.
static size_t skip_inert(std::string_view text, size_t at) {
  while (at < text.size()) {
    const uint8_t first = uint8_t(text[at]);
    if (first < 0xCC) {  // below U+0300
      at += first < 0x80 ? 1 : 2;
      continue;
    }
    const size_t n = utf8_character(text, at);
    if (!is_inert(utf8_code_point(text, at, n))) return at;
    at += n;
  }
  return at;
}

static void append_nfc(std::string_view part, std::string& out) {
  utf8proc_uint8_t* made = nullptr;
  const auto n = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(part.data()),
                              utf8proc_ssize_t(part.size()), &made,
                              utf8proc_option_t(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  SLUICE_CHECK(n >= 0, "utf8proc: ", utf8proc_errmsg(n));
  out.append(reinterpret_cast<const char*>(made), size_t(n));
  std::free(made);
}

std::string_view nfc(std::string_view text, std::string& out) {
  size_t at = skip_inert(text, 0), copied = 0;
  if (at == text.size()) return text;
  out.clear();
  while (at < text.size()) {
    // From the character before, which `at` may join, to the next inert one.
    size_t begin = at;
    if (at > copied) {
      do --begin;
      while ((uint8_t(text[begin]) & 0xC0) == 0x80);
      if (newer_than_nfc(utf8_code_point(text, begin, at - begin))) begin = at;
    }
    size_t end = at;
    while (end < text.size()) {
      const size_t n = utf8_character(text, end);
      if (is_inert(utf8_code_point(text, end, n))) break;
      end += n;
    }
    out += text.substr(copied, begin - copied);
    append_nfc(text.substr(begin, end - begin), out);
    copied = end;
    at = skip_inert(text, end);
  }
  out += text.substr(copied);
  return out;
}

}  // namespace sluice
