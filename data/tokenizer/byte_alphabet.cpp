// data/tokenizer/byte_alphabet.cpp -- a table of 256 code points and its inverse.
#include "data/tokenizer/byte_alphabet.h"

#include <array>
#include <cstdint>

#include "kernels/base/check.h"

namespace sluice {

static bool visible(int b) {
  return (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || (b >= 0xAE && b <= 0xFF);
}

static std::array<int, 256> make_table() {
  std::array<int, 256> table{};
  int next = 256;
  for (int b = 0; b < 256; ++b) table[size_t(b)] = visible(b) ? b : next++;
  return table;
}

std::string bytes_to_alphabet(std::string_view bytes) {
  static const std::array<int, 256> table = make_table();
  std::string out;
  for (const char ch : bytes) {
    const int code = table[uint8_t(ch)];  // below U+0800: at most two bytes of UTF-8
    if (code < 0x80) {
      out += char(code);
    } else {
      out += char(0xC0 | code >> 6);
      out += char(0x80 | (code & 0x3F));
    }
  }
  return out;
}

std::string alphabet_to_bytes(std::string_view text, const std::string& what) {
  static const std::array<int, 512> inverse = [] {
    std::array<int, 512> inv{};
    inv.fill(-1);
    const std::array<int, 256> table = make_table();
    for (int b = 0; b < 256; ++b) inv[size_t(table[size_t(b)])] = b;
    return inv;
  }();
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    int code = uint8_t(text[i]);
    if (code >= 0xC0 && code < 0xE0 && i + 1 < text.size())
      code = (code & 0x1F) << 6 | (uint8_t(text[++i]) & 0x3F);
    else if (code >= 0x80)  // a longer character's byte is not the character of that number
      code = 512;
    SLUICE_CHECK(code < 512 && inverse[size_t(code)] >= 0, what, ": \"", text,
                 "\" has a character that stands for no byte");
    out += char(inverse[size_t(code)]);
  }
  return out;
}

}  // namespace sluice
